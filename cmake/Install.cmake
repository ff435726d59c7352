# Two layouts of one tree: a plain prefix (`cmake --install`), and the Python package, whose folder is itself a prefix.
option(FUSIBLE_PACKAGE_LAYOUT "Install as the Python package: the extension at the root, torch as the neighbour" OFF)
include(CMakePackageConfigHelpers)

set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/fusible)
set(data_dir ${CMAKE_INSTALL_DATADIR}/fusible)
if(FUSIBLE_PACKAGE_LAYOUT)
  set(data_dir share)
  set(torch_beside "$ORIGIN/../../torch/lib")
  if(FUSIBLE_PYTHON)
    set_target_properties(fusible_python PROPERTIES INSTALL_RPATH "$ORIGIN/lib;$ORIGIN/../torch/lib")
    install(TARGETS fusible_python LIBRARY DESTINATION . COMPONENT fusible)
    configure_file(${CMAKE_CURRENT_LIST_DIR}/build_info.json.in ${CMAKE_BINARY_DIR}/_build_info.json @ONLY)
    install(FILES ${CMAKE_BINARY_DIR}/_build_info.json DESTINATION . COMPONENT fusible)
  endif()
endif()
# The folder that torch was linked from is searched last: a plain prefix and an editable package have no torch beside them.
set_target_properties(fusible PROPERTIES INSTALL_RPATH "${torch_beside};${TORCH_INSTALL_PREFIX}/lib")

install(TARGETS fusible EXPORT fusibleTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT fusible
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY ${CMAKE_SOURCE_DIR}/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT fusible)
install(DIRECTORY ${CMAKE_SOURCE_DIR}/patterns ${CMAKE_SOURCE_DIR}/rules DESTINATION ${data_dir} COMPONENT fusible
        FILES_MATCHING PATTERN "*.fus" PATTERN "*.md")
install(EXPORT fusibleTargets NAMESPACE fusible:: DESTINATION ${config_dir} COMPONENT fusible)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/fusibleConfig.cmake.in ${CMAKE_BINARY_DIR}/fusibleConfig.cmake
                              INSTALL_DESTINATION ${config_dir} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/fusibleConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/fusibleConfig.cmake ${CMAKE_BINARY_DIR}/fusibleConfigVersion.cmake ${CMAKE_CURRENT_LIST_DIR}/FusibleLint.cmake
        DESTINATION ${config_dir} COMPONENT fusible)
