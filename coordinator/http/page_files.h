// The web page's files, which cmake/embed_page.py compiles into the program.
#pragma once

#include <string_view>
#include <vector>

namespace tundra::coordinator {

struct PageFile {
  // "/" or "/assets/HASH/NAME", where HASH is of all files: what stands there never changes.
  std::string_view path;
  // For example "text/css; charset=utf-8".
  std::string_view content_type;
  std::string_view bytes;
};

const std::vector<PageFile>& PageFiles();

}  // namespace tundra::coordinator
