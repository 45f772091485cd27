# Helpers: one target a folder, the same warnings everywhere.
#
#   tundra_library(NAME SOURCES a.cc … DEPS x y)     static library tundra_NAME
#   tundra_cold(NAME …)  tundra_precompile(NAME <header> …)   to compile in less time
#   tundra_program(NAME SOURCES main.cc DEPS x y)    program in bin/
#   tundra_test(NAME SOURCES x_test.cc DEPS x y [TIMEOUT s] [LABELS l …] [DATA])
#       a GoogleTest program, registered with ctest as NAME.
#       It runs with TUNDRA_SOURCE_DIR and TUNDRA_BIN_DIR in its environment.
include(GNUInstallDirs)

add_library(tundra_options INTERFACE)
target_include_directories(tundra_options INTERFACE ${CMAKE_SOURCE_DIR})
# nvcc takes other options: worker/cuda has them.
target_compile_options(tundra_options INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wconversion;-Wno-sign-conversion;-fno-math-errno>"
  "$<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${TUNDRA_WERROR}>>:-Werror>")
# GCC 12 warns of these inside libstdc++'s std::string and protobuf's containers
# where nothing is wrong (GCC bugs 105651, 105562).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(tundra_options INTERFACE
    "$<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict;-Wno-maybe-uninitialized>")
endif()
# The bits of a result must not depend on which products the compiler fuses.
target_compile_options(tundra_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)
if(TUNDRA_SANITIZE)
  # Undefined behaviour ends the program: a line on stderr would fail no test.
  target_compile_options(tundra_options INTERFACE
    "$<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${TUNDRA_SANITIZE};-fno-sanitize-recover=all;-fno-omit-frame-pointer>")
  target_link_options(tundra_options INTERFACE -fsanitize=${TUNDRA_SANITIZE})
endif()

function(tundra_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_library(tundra_${name} STATIC ${ARG_SOURCES})
  target_link_libraries(tundra_${name} PUBLIC tundra_options ${ARG_DEPS})
endfunction()

# For libraries that wait for networks, disks and people: -O1, which takes a third
# less time to compile.
function(tundra_cold)
  foreach(name ${ARGN})
    target_compile_options(tundra_${name} PRIVATE $<$<CONFIG:Release>:-O1>)
  endforeach()
endfunction()

# Compiles headers (gRPC's and protobuf's, above all) once for all of a library.
function(tundra_precompile name)
  target_precompile_headers(tundra_${name} PRIVATE ${ARGN})
  # What ccache needs in order to cache such a library.
  target_compile_options(tundra_${name} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)
endfunction()

function(tundra_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE tundra_options ${ARG_DEPS})
  install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endfunction()

function(tundra_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  if(NOT TUNDRA_BUILD_TESTS)
    return()
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_link_libraries(${name} PRIVATE tundra_options ${ARG_DEPS} GTest::gmock GTest::gtest GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES
    TIMEOUT ${ARG_TIMEOUT}
    LABELS "${ARG_LABELS}"
    ENVIRONMENT "TUNDRA_SOURCE_DIR=${CMAKE_SOURCE_DIR};TUNDRA_BIN_DIR=${CMAKE_RUNTIME_OUTPUT_DIRECTORY};OMP_WAIT_POLICY=passive")
endfunction()
