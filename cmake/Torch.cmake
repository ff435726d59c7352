# LibTorch is the wheel in the chosen Python; the build is pinned to the exact version that it was tested with (pytorch#88301).
set(FUSIBLE_TORCH_VERSION 2.13.0)
find_package(Python3 3.10 COMPONENTS Interpreter Development.Module QUIET)
if(NOT Torch_DIR AND Python3_EXECUTABLE)
  execute_process(COMMAND ${Python3_EXECUTABLE} -c "import torch; print(torch.utils.cmake_prefix_path)"
                  OUTPUT_VARIABLE torch_prefix OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  list(APPEND CMAKE_PREFIX_PATH "${torch_prefix}")
endif()
find_package(Torch QUIET)
if(NOT Torch_FOUND)
  message(FATAL_ERROR "LibTorch ${FUSIBLE_TORCH_VERSION} was needed, none was found by ${Python3_EXECUTABLE}: "
                      "run `pip install torch==${FUSIBLE_TORCH_VERSION}` there, or pass -DTorch_DIR=...")
endif()
file(READ "${TORCH_INSTALL_PREFIX}/version.py" torch_version_py)
string(REGEX MATCH "__version__ = '([0-9.]+)" _ "${torch_version_py}")
if(NOT CMAKE_MATCH_1 STREQUAL FUSIBLE_TORCH_VERSION)
  message(FATAL_ERROR "torch ${FUSIBLE_TORCH_VERSION} was needed, ${CMAKE_MATCH_1} was found in ${TORCH_INSTALL_PREFIX}: "
                      "run `pip install torch==${FUSIBLE_TORCH_VERSION}`")
endif()
separate_arguments(torch_flags UNIX_COMMAND "${TORCH_CXX_FLAGS}")
add_compile_options(${torch_flags})

# at::parallel_for is a template: without -fopenmp in our own files it runs on one thread. The one OpenMP runtime is torch's, linked by path:
# a second libgomp would bring threads of its own.
add_library(fusible_openmp INTERFACE)
target_compile_options(fusible_openmp INTERFACE -fopenmp)
file(GLOB torch_openmp "${TORCH_INSTALL_PREFIX}/lib/libgomp*.so*")
if(torch_openmp)
  target_link_libraries(fusible_openmp INTERFACE ${torch_openmp})
else()
  find_package(OpenMP REQUIRED COMPONENTS CXX)
  target_link_libraries(fusible_openmp INTERFACE OpenMP::OpenMP_CXX)
endif()
