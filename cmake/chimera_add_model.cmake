# chimera_add_model(<target> <file> [NAME <name>])
#
# Gives <target> the header <target/model.hpp>, which declares `inline constexpr chimera::Config <name>`: the config of
# the model in <file>, a .gguf file, a Hugging Face folder or its config.json, a run's folder or a checkpoint. The header
# is written by chimera-config when <target> is built, and again when <file> changes. <target> may exist; if not, it
# becomes an interface library that links chimera::chimera. <name> is <target>, as an identifier, unless it is given.
function(chimera_add_model target file)
  cmake_parse_arguments(PARSE_ARGV 2 model "" NAME "")
  if(model_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "chimera_add_model: expected <target> <file> [NAME <name>], found ${model_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT model_NAME)
    string(MAKE_C_IDENTIFIER ${target} model_NAME)
  endif()
  cmake_path(ABSOLUTE_PATH file BASE_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR} NORMALIZE)
  if(NOT TARGET chimera::chimera-config)
    chimera_build_config_program()
  endif()

  set(include ${CMAKE_CURRENT_BINARY_DIR}/chimera_models)
  set(header ${include}/${target}/model.hpp)
  set(changing ${file})
  if(EXISTS ${file}/config.json)
    set(changing ${file}/config.json)
  endif()
  add_custom_command(
    OUTPUT ${header}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${include}/${target}
    COMMAND chimera::chimera-config ${file} --name ${model_NAME} --out ${header}
    DEPENDS ${changing} chimera::chimera-config
    COMMENT "Writing the config of ${file} to ${target}/model.hpp"
    VERBATIM)
  add_custom_target(${target}_model DEPENDS ${header})

  if(NOT TARGET ${target})
    add_library(${target} INTERFACE)
    target_link_libraries(${target} INTERFACE chimera::chimera)
  endif()
  get_target_property(type ${target} TYPE)
  if(type STREQUAL INTERFACE_LIBRARY)
    target_include_directories(${target} INTERFACE ${include})
  else()
    target_include_directories(${target} PUBLIC ${include})
  endif()
  add_dependencies(${target} ${target}_model)
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
