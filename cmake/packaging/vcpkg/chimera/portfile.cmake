# An overlay port, which builds the tree that it lies in: vcpkg install chimera --overlay-ports=cmake/packaging/vcpkg
get_filename_component(SOURCE_PATH "${CURRENT_PORT_DIR}/../../../.." ABSOLUTE)
set(VCPKG_BUILD_TYPE release) # headers, and a library that is optimised in any build

vcpkg_check_features(OUT_FEATURE_OPTIONS features FEATURES programs CHIMERA_BUILD_EXAMPLES)
vcpkg_cmake_configure(
  SOURCE_PATH "${SOURCE_PATH}"
  OPTIONS ${features} -DCHIMERA_BUILD_TESTS=OFF -DCHIMERA_BUILD_BENCH=OFF -DCHIMERA_BUILD_COMPILED=ON)
vcpkg_cmake_install()
if("programs" IN_LIST FEATURES)
  file(MAKE_DIRECTORY "${CURRENT_PACKAGES_DIR}/tools")
  file(RENAME "${CURRENT_PACKAGES_DIR}/bin" "${CURRENT_PACKAGES_DIR}/tools/chimera")
  file(READ "${CURRENT_PACKAGES_DIR}/share/cmake/chimera/chimera-programs-release.cmake" text)
  string(REPLACE "/bin/" "/tools/chimera/" text "${text}")
  file(WRITE "${CURRENT_PACKAGES_DIR}/share/cmake/chimera/chimera-programs-release.cmake" "${text}")
endif()
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
set(VCPKG_POLICY_SKIP_MISPLACED_CMAKE_FILES_CHECK enabled) # find_package looks in share/cmake, too
set(VCPKG_POLICY_SKIP_LIB_CMAKE_MERGE_CHECK enabled)
