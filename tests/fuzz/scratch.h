// A folder for parsers that read files; in memory where the machine has such a place.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "common/files.h"
#include "tests/fuzz/target.h"

namespace tundra::fuzz {

class Scratch {
 public:
  Scratch() {
    if (::access("/dev/shm", W_OK) == 0) ::setenv("TMPDIR", "/dev/shm", /*overwrite=*/0);
    folder_.emplace();
  }
  std::string path() const { return folder_->path(); }
  std::string operator/(std::string_view name) const { return *folder_ / name; }

  // Without the syncs of WriteFileAtomically, which would take most of the time. Empty bytes: no
  // file.
  void Write(std::string_view name, std::string_view bytes) const {
    const std::string path = *folder_ / name;
    ::unlink(path.c_str());
    if (bytes.empty()) return;
    const Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    EXPECT_FUZZ(file.valid() && WriteAll(file.get(), bytes, path).ok());
  }

 private:
  std::optional<TempDir> folder_;
};

}  // namespace tundra::fuzz
