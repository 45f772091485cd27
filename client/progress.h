// Progress on long work: a bar that redraws itself on a terminal, nothing (or
// plain lines from the caller) when output is piped.
#pragma once

#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace tundra::client {

// "[#####-----]" of `width` characters.
std::string BarText(double fraction, int width);

// Bytes of a transfer.
class ProgressBar {
 public:
  ProgressBar(std::string label, int64_t total, bool quiet);
  ~ProgressBar() { Done(); }
  void Set(int64_t done);
  // Removes the bar.
  void Done();

 private:
  const std::string label_;
  const int64_t total_;
  const bool shown_;
  bool drawn_ = false;
  absl::Time last_ = absl::InfinitePast();
};

// Replaces the line that the cursor is on (terminals only).
void RedrawLine(const std::string& text);
void ClearLine();

}  // namespace tundra::client
