# embed_texts(OUT.cpp SYMBOL FILES...): a C++ file that defines `const EmbeddedText SYMBOL[]` (name, text) ended by {nullptr, nullptr}.
set(FUSIBLE_EMBED_SCRIPT ${CMAKE_CURRENT_LIST_DIR}/embed.py)
function(embed_texts out symbol)
  add_custom_command(OUTPUT ${out}
    COMMAND ${Python3_EXECUTABLE} ${FUSIBLE_EMBED_SCRIPT} ${out} ${symbol} ${ARGN}
    DEPENDS ${FUSIBLE_EMBED_SCRIPT} ${ARGN} VERBATIM)
endfunction()
