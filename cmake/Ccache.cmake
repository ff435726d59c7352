# A second build of the same sources costs seconds. Absolute paths are made relative so that clones share the cache.
find_program(FUSIBLE_CCACHE ccache)
if(FUSIBLE_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      ${FUSIBLE_CCACHE})
endif()
