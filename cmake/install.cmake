# What `cmake --install` puts where: headers, the package for find_package, the file for pkg-config.
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_DATADIR}/cmake/chimera)
install(TARGETS chimera EXPORT chimera FILE_SET HEADERS)
install(EXPORT chimera NAMESPACE chimera:: FILE chimera-targets.cmake DESTINATION ${package_dir})

write_basic_package_version_file(
  ${PROJECT_BINARY_DIR}/chimera-config-version.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
if(CHIMERA_BUILD_EXAMPLES)
  install(TARGETS chimera-config EXPORT chimera-programs)
  install(EXPORT chimera-programs NAMESPACE chimera:: FILE chimera-programs.cmake DESTINATION ${package_dir})
endif()

# The compiled library is of one architecture, so it and its export set lie in the folder for libraries. The export set
# is there even where the library was not built: the package looks for the library.
set(compiled_dir ${CMAKE_INSTALL_LIBDIR}/cmake/chimera)
set(compiled_name ${CMAKE_STATIC_LIBRARY_PREFIX}chimera${CMAKE_STATIC_LIBRARY_SUFFIX})
if(CHIMERA_BUILD_COMPILED)
  install(TARGETS chimera_compiled EXPORT chimera-compiled ARCHIVE OPTIONAL)
  install(EXPORT chimera-compiled NAMESPACE chimera:: DESTINATION ${compiled_dir})
endif()
file(RELATIVE_PATH CHIMERA_LIBRARY /prefix/${package_dir} /prefix/${CMAKE_INSTALL_LIBDIR}/${compiled_name})
file(RELATIVE_PATH CHIMERA_COMPILED /prefix/${package_dir} /prefix/${compiled_dir}/chimera-compiled.cmake)
configure_file(${PROJECT_SOURCE_DIR}/cmake/chimera-config.cmake.in ${PROJECT_BINARY_DIR}/chimera-config.cmake @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/chimera-config.cmake ${PROJECT_BINARY_DIR}/chimera-config-version.cmake
              ${PROJECT_SOURCE_DIR}/cmake/chimera_add_model.cmake
        DESTINATION ${package_dir})

# The prefix in chimera.pc is found from where the file lies, so that an installed tree can be moved.
set(pkgconfig_dir ${CMAKE_INSTALL_DATADIR}/pkgconfig)
file(RELATIVE_PATH CHIMERA_PREFIX_FROM_PKGCONFIG /prefix/${pkgconfig_dir} /prefix)
configure_file(${PROJECT_SOURCE_DIR}/cmake/chimera.pc.in ${PROJECT_BINARY_DIR}/chimera.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/chimera.pc DESTINATION ${pkgconfig_dir})
