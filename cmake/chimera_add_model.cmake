# chimera_add_model(<target> <file> [NAME <name>] [EMBED])
#
# Gives <target> the header <target/model.hpp>, which declares `inline constexpr chimera::Config <name>`: the config of
# the model in <file>, a .gguf file, a Hugging Face folder or its config.json, a run's folder or a checkpoint. The header
# is written by chimera-config when <target> is built, and again when <file> changes. <target> may exist; if not, it
# becomes an interface library that links chimera::chimera. <name> is <target>, as an identifier, unless it is given.
#
# With EMBED the .gguf file itself becomes part of the program, and the header declares
# `std::span<const std::byte> <name>_file()`, from which Gguf::parse and pack_gguf load without a file system.
function(chimera_add_model target file)
  cmake_parse_arguments(PARSE_ARGV 2 model EMBED NAME "")
  if(model_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "chimera_add_model: expected <target> <file> [NAME <name>] [EMBED], "
                        "found ${model_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT model_NAME)
    string(MAKE_C_IDENTIFIER ${target} model_NAME)
  endif()
  cmake_path(ABSOLUTE_PATH file BASE_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR} NORMALIZE)
  if(model_EMBED AND (NOT file MATCHES "\\.gguf$" OR IS_DIRECTORY ${file}))
    message(FATAL_ERROR "chimera_add_model: EMBED takes a .gguf file, found ${file}: chimera-convert makes one of it")
  endif()
  if(NOT TARGET chimera::chimera-config)
    chimera_build_config_program()
  endif()

  set(include ${CMAKE_CURRENT_BINARY_DIR}/chimera_models)
  set(header ${include}/${target}/model.hpp)
  set(changing ${file})
  if(EXISTS ${file}/config.json)
    set(changing ${file}/config.json)
  endif()
  set(embedded)
  set(embed)
  if(model_EMBED)
    set(embedded ${include}/${target}/file.cpp)
    set(embed --embed ${embedded})
  endif()
  add_custom_command(
    OUTPUT ${header} ${embedded}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${include}/${target}
    COMMAND chimera::chimera-config ${file} --name ${model_NAME} --out ${header} ${embed}
    DEPENDS ${changing} chimera::chimera-config
    COMMENT "Writing the config of ${file} to ${target}/model.hpp"
    VERBATIM)
  add_custom_target(${target}_model DEPENDS ${header})

  if(NOT TARGET ${target})
    add_library(${target} INTERFACE)
    target_link_libraries(${target} INTERFACE chimera::chimera)
  endif()
  get_target_property(type ${target} TYPE)
  set(scope PUBLIC)
  if(type STREQUAL INTERFACE_LIBRARY)
    set(scope INTERFACE)
  endif()
  target_include_directories(${target} ${scope} ${include})
  add_dependencies(${target} ${target}_model)
  if(model_EMBED)
    add_library(${target}_file STATIC ${embedded})
    target_compile_features(${target}_file PRIVATE cxx_std_20)
    set_target_properties(${target}_file PROPERTIES POSITION_INDEPENDENT_CODE ON)
    add_dependencies(${target}_file ${target}_model)
    target_link_libraries(${target} ${scope} ${target}_file)
  endif()
endfunction()

# Inside another project chimera's programs are not built, but for this one where a model asks for it.
function(chimera_build_config_program)
  set(source ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../examples/config.cpp)
  if(NOT EXISTS ${source})
    message(FATAL_ERROR "chimera_add_model needs the program chimera-config, and this chimera was installed without "
                        "programs: install it with CHIMERA_BUILD_EXAMPLES=ON")
  endif()
  find_package(CLI11 REQUIRED)
  add_executable(chimera-config EXCLUDE_FROM_ALL ${source})
  target_link_libraries(chimera-config PRIVATE chimera::chimera CLI11::CLI11)
  add_executable(chimera::chimera-config ALIAS chimera-config)
endfunction()
