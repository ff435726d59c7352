# fusible_add_lint_test(NAME MODEL.pt [ARGUMENTS...]): a ctest case that lints an archive which the build made or the source tree holds. A path that
# is not absolute is one of the folder whose CMakeLists.txt calls this.
#
#   fusible_add_lint_test(detector_is_fused ${CMAKE_BINARY_DIR}/detector.pt --min-fused 0.95)
#
# FUSIBLE_COMMAND: the command line, a list; found as `fusible` in the path when not set.
function(fusible_add_lint_test name model)
  if(NOT FUSIBLE_COMMAND)
    find_program(FUSIBLE_COMMAND fusible DOC "The fusible command line")
  endif()
  if(NOT FUSIBLE_COMMAND)
    message(FATAL_ERROR "fusible_add_lint_test(${name}): the command `fusible` was needed, none was found: "
                        "run `pip install fusible`, or set FUSIBLE_COMMAND")
  endif()
  if(NOT model MATCHES "^\\$<") # a generator expression is a path of its own
    cmake_path(ABSOLUTE_PATH model BASE_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR})
  endif()
  add_test(NAME ${name} COMMAND ${FUSIBLE_COMMAND} lint ${model} --color never ${ARGN})
endfunction()
