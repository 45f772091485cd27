# cuDNN's attention in the CUDA backend: used where cudnn.h (9.6 or newer) and cudnn_frontend.h
# (1.14 or newer; header-only, in NVIDIA's Python package nvidia-cudnn-frontend) are found, and
# left out elsewhere. -D TUNDRA_CUDNN_FRONTEND_INCLUDE=DIR and -D TUNDRA_CUDNN_INCLUDE=DIR name
# folders. The library itself is opened at run time.
# Sets TUNDRA_CUDNN and, where it is off, TUNDRA_CUDNN_WHY_NOT.
option(TUNDRA_WITH_CUDNN "Use cuDNN's attention if its headers are found" ON)
set(TUNDRA_CUDNN OFF)

# The version in a header with …MAJOR…, …MINOR… and …PATCH… numbers, as MAJOR.MINOR.PATCH.
function(tundra_header_version result file)
  set(version)
  if(EXISTS ${file})
    foreach(part MAJOR MINOR PATCH)
      file(STRINGS ${file} line REGEX "^#define CUDNN_(FRONTEND_)?${part}(LEVEL)?(_VERSION)? +[0-9]+")
      string(REGEX MATCH "[0-9]+$" number "${line}")
      list(APPEND version "${number}")
    endforeach()
  endif()
  list(JOIN version "." version)
  set(${result} "${version}" PARENT_SCOPE)
endfunction()

if(NOT TUNDRA_CUDA)
  set(TUNDRA_CUDNN_WHY_NOT "the CUDA backend is left out")
elseif(NOT TUNDRA_WITH_CUDNN)
  set(TUNDRA_CUDNN_WHY_NOT "TUNDRA_WITH_CUDNN is off")
else()
  find_path(TUNDRA_CUDNN_INCLUDE cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  # Where pip puts the header, in a virtual environment that is active or for all users.
  find_package(Python3 QUIET COMPONENTS Interpreter)
  find_path(TUNDRA_CUDNN_FRONTEND_INCLUDE cudnn_frontend.h
    HINTS ${CUDAToolkit_INCLUDE_DIRS} ${Python3_SITELIB}/include $ENV{VIRTUAL_ENV}/include)
  set(cudnn ${TUNDRA_CUDNN_INCLUDE}/cudnn_version.h)
  if(EXISTS ${TUNDRA_CUDNN_INCLUDE}/cudnn_version_v9.h)
    set(cudnn ${TUNDRA_CUDNN_INCLUDE}/cudnn_version_v9.h)
  endif()
  tundra_header_version(cudnn ${cudnn})
  tundra_header_version(frontend ${TUNDRA_CUDNN_FRONTEND_INCLUDE}/cudnn_frontend_version.h)
  if(NOT TUNDRA_CUDNN_INCLUDE)
    set(TUNDRA_CUDNN_WHY_NOT "no cudnn.h was found")
  elseif(cudnn VERSION_LESS 9.6 OR cudnn VERSION_GREATER_EQUAL 10)
    set(TUNDRA_CUDNN_WHY_NOT "cudnn.h is of version ${cudnn}, not of 9.6 or a later 9")
  elseif(NOT TUNDRA_CUDNN_FRONTEND_INCLUDE)
    set(TUNDRA_CUDNN_WHY_NOT
      "no cudnn_frontend.h was found (pip install nvidia-cudnn-frontend, or -D TUNDRA_CUDNN_FRONTEND_INCLUDE=DIR)")
  elseif(frontend VERSION_LESS 1.14)
    set(TUNDRA_CUDNN_WHY_NOT "cudnn_frontend.h is of version ${frontend}, older than 1.14")
  else()
    set(TUNDRA_CUDNN ON)
    set(TUNDRA_CUDNN_WHY_NOT)
  endif()
endif()

if(TUNDRA_CUDNN)
  message(STATUS "cuDNN attention: with cuDNN ${cudnn} and its frontend ${frontend}")
else()
  message(STATUS "cuDNN attention: left out, because ${TUNDRA_CUDNN_WHY_NOT}")
endif()
