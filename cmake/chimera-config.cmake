include(CMakeFindDependencyMacro)
find_dependency(Threads)
find_dependency(Boost 1.70)
include(${CMAKE_CURRENT_LIST_DIR}/chimera-targets.cmake)
