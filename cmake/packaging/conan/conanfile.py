"""Builds the tree that it lies in: conan create cmake/packaging/conan --build=missing

hana: where Boost.Hana comes from, `boost` (the package, headers alone) or `system` (an installed Boost).
"""
import os
import re

from conan import ConanFile
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain, cmake_layout
from conan.tools.files import copy, load

ROOT = os.path.join("..", "..", "..")


class Chimera(ConanFile):
    name = "chimera"
    description = "Hybrid language models whose configuration is a compile-time value"
    license = "MIT"
    package_type = "static-library"
    settings = "os", "arch", "compiler", "build_type"
    options = {"hana": ["boost", "system"]}
    default_options = {"hana": "boost", "boost/*:header_only": True}

    def set_version(self):
        header = load(self, os.path.join(self.recipe_folder, ROOT, "include", "chimera", "core", "version.hpp"))
        self.version = re.search(r'library_version = "(.*)"', header).group(1)

    def export_sources(self):
        root = os.path.join(self.recipe_folder, ROOT)
        for pattern in ("CMakeLists.txt", "LICENSE", "README.md", "include/*", "cmake/*"):
            copy(self, pattern, root, self.export_sources_folder)

    def requirements(self):
        if self.options.hana == "boost":
            self.requires("boost/[>=1.70]", transitive_headers=True)

    def layout(self):
        cmake_layout(self)

    def generate(self):
        CMakeDeps(self).generate()
        toolchain = CMakeToolchain(self)
        for part in ("TESTS", "EXAMPLES", "BENCH"):
            toolchain.cache_variables[f"CHIMERA_BUILD_{part}"] = False
        toolchain.generate()

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def package(self):
        CMake(self).install()

    def package_info(self):
        # The package's own files for find_package, with both of its targets.
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs = [os.path.join("share", "cmake", "chimera")]
        self.cpp_info.libs = ["chimera"]
        self.cpp_info.defines = ["CHIMERA_EXTERN"]
        self.cpp_info.system_libs = ["pthread"]
