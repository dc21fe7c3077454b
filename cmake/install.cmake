# What `cmake --install` puts where: headers, programs, the package for find_package, the file for pkg-config, the
# licence. Folders of GNUInstallDirs may be absolute; where all are relative, an installed tree can be moved.
include(CMakePackageConfigHelpers)

set(package_dir "${CMAKE_INSTALL_DATADIR}/cmake/chimera")
install(TARGETS chimera EXPORT chimera)
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/chimera" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
        FILES_MATCHING PATTERN *.hpp)
install(EXPORT chimera NAMESPACE chimera:: FILE chimera-targets.cmake DESTINATION "${package_dir}")
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" "${PROJECT_SOURCE_DIR}/README.md"
        DESTINATION "${CMAKE_INSTALL_DATADIR}/doc/chimera")

write_basic_package_version_file(
  "${PROJECT_BINARY_DIR}/chimera-config-version.cmake" COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
if(CHIMERA_BUILD_EXAMPLES)
  install(TARGETS chimera-config EXPORT chimera-programs)
  install(EXPORT chimera-programs NAMESPACE chimera:: FILE chimera-programs.cmake DESTINATION "${package_dir}")
endif()

# The way from a folder of the installation to another, which begins with `here` where that is written.
function(way_between from to here result)
  if(IS_ABSOLUTE "${from}" OR IS_ABSOLUTE "${to}")
    cmake_path(ABSOLUTE_PATH to BASE_DIRECTORY "${CMAKE_INSTALL_PREFIX}" NORMALIZE)
    set(${result} "${to}" PARENT_SCOPE)
  else()
    file(RELATIVE_PATH way "/prefix/${from}" "/prefix/${to}")
    set(${result} "${here}/${way}" PARENT_SCOPE)
  endif()
endfunction()

# The compiled library is of one architecture, so it and its export set lie in the folder for libraries. The export set
# is there even where the library was not built: the package looks for the library.
set(compiled_dir "${CMAKE_INSTALL_LIBDIR}/cmake/chimera")
set(compiled_name ${CMAKE_STATIC_LIBRARY_PREFIX}chimera${CMAKE_STATIC_LIBRARY_SUFFIX})
if(CHIMERA_BUILD_COMPILED)
  install(TARGETS chimera_compiled EXPORT chimera-compiled ARCHIVE OPTIONAL)
  install(EXPORT chimera-compiled NAMESPACE chimera:: DESTINATION "${compiled_dir}")
endif()
set(here "\${CMAKE_CURRENT_LIST_DIR}")
way_between("${package_dir}" "${CMAKE_INSTALL_LIBDIR}/${compiled_name}" "${here}" CHIMERA_LIBRARY)
way_between("${package_dir}" "${compiled_dir}/chimera-compiled.cmake" "${here}" CHIMERA_COMPILED)
configure_file("${PROJECT_SOURCE_DIR}/cmake/chimera-config.cmake.in" "${PROJECT_BINARY_DIR}/chimera-config.cmake" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/chimera-config.cmake" "${PROJECT_BINARY_DIR}/chimera-config-version.cmake"
              "${PROJECT_SOURCE_DIR}/cmake/chimera_add_model.cmake" "${PROJECT_SOURCE_DIR}/cmake/hana.cmake"
        DESTINATION "${package_dir}")

# The prefix in chimera.pc is found from where the file lies.
set(pkgconfig_dir "${CMAKE_INSTALL_DATADIR}/pkgconfig")
way_between("${pkgconfig_dir}" . "\${pcfiledir}" CHIMERA_PC_PREFIX)
way_between(. "${CMAKE_INSTALL_INCLUDEDIR}" "\${prefix}" CHIMERA_PC_INCLUDEDIR)
set(CHIMERA_PC_HANA)
if(BOOST_HANA)
  set(CHIMERA_PC_HANA " -I${BOOST_HANA}")
endif()
foreach(path IN ITEMS CHIMERA_PC_PREFIX CHIMERA_PC_INCLUDEDIR)
  string(REPLACE " " "\\ " ${path} "${${path}}")
endforeach()
configure_file("${PROJECT_SOURCE_DIR}/cmake/chimera.pc.in" "${PROJECT_BINARY_DIR}/chimera.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/chimera.pc" DESTINATION "${pkgconfig_dir}")

if(PROJECT_IS_TOP_LEVEL AND NOT PROJECT_BINARY_DIR MATCHES "[#<>]") # which CMake takes in no custom target
  add_custom_target(
    uninstall
    COMMAND "${CMAKE_COMMAND}" -D "MANIFEST=${PROJECT_BINARY_DIR}/install_manifest.txt" -P
            "${PROJECT_SOURCE_DIR}/cmake/uninstall.cmake"
    VERBATIM)
endif()
