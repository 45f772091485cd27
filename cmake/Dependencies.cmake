# Every library that Tundra uses, found once, as imported targets.
# All come from Debian 12 packages: tools/packages.txt lists them.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(ZLIB REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(Protobuf REQUIRED)
find_package(absl CONFIG REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(spdlog CONFIG REQUIRED)
find_package(nlohmann_json CONFIG REQUIRED)
find_package(yaml-cpp CONFIG REQUIRED)
find_package(prometheus-cpp CONFIG REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(CLI11 CONFIG REQUIRED)

pkg_check_modules(HWY REQUIRED IMPORTED_TARGET libhwy libhwy-contrib)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)
pkg_check_modules(SQLITE3 REQUIRED IMPORTED_TARGET sqlite3)
pkg_check_modules(HTTPLIB REQUIRED IMPORTED_TARGET cpp-httplib)

find_program(PROTOC protoc REQUIRED)
find_program(GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)

# SOCI and Gloo come without CMake config files; that of oneDNN asks for OpenCL's
# headers, which Tundra does not need.
function(tundra_import_library name header)
  find_path(${name}_INCLUDE ${header} REQUIRED)
  add_library(tundra_${name} INTERFACE)
  foreach(lib ${ARGN})
    find_library(${name}_${lib}_LIB ${lib} REQUIRED)
    target_link_libraries(tundra_${name} INTERFACE ${${name}_${lib}_LIB})
  endforeach()
  target_include_directories(tundra_${name} SYSTEM INTERFACE ${${name}_INCLUDE})
endfunction()
tundra_import_library(soci soci/soci.h soci_core soci_sqlite3)
target_link_libraries(tundra_soci INTERFACE PkgConfig::SQLITE3)
tundra_import_library(gloo gloo/context.h gloo)
tundra_import_library(dnnl oneapi/dnnl/dnnl.hpp dnnl)

find_program(CCACHE ccache)
if(CCACHE)
  # The sloppiness is what precompiled headers need to be cached.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${CCACHE})
  message(STATUS "Compiler cache: ${CCACHE}")
endif()

if(TUNDRA_BUILD_TESTS)
  find_package(GTest REQUIRED)
  # The fibres on which CUDA kernels run in tests.
  tundra_import_library(boost_context boost/context/fiber.hpp boost_context)
endif()
