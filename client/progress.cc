#include "client/progress.h"

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "client/output.h"

namespace tundra::client {

std::string BarText(double fraction, int width) {
  // Not more than whole, and NaN is nothing: a cast of either would be undefined.
  const double part = fraction > 0 ? std::min(fraction, 1.0) : 0;
  const int filled = static_cast<int>(part * width + 0.5);
  return absl::StrCat("[", std::string(static_cast<size_t>(filled), '#'),
                      std::string(static_cast<size_t>(width - filled), '-'), "]");
}

void RedrawLine(const std::string& text) {
  // Cut to the terminal's width, or a wrapped line could not be redrawn.
  const auto width = static_cast<size_t>(TerminalWidth() - 1);
  std::printf("\r\x1b[2K%s", text.substr(0, width).c_str());
  std::fflush(stdout);
}

void ClearLine() {
  std::printf("\r\x1b[2K");
  std::fflush(stdout);
}

ProgressBar::ProgressBar(std::string label, int64_t total, bool quiet)
    : label_(std::move(label)),
      total_(std::max<int64_t>(1, total)),
      shown_(!quiet && OnTerminal()) {}

void ProgressBar::Set(int64_t done) {
  if (!shown_ || absl::Now() - last_ < absl::Milliseconds(100)) return;
  last_ = absl::Now();
  drawn_ = true;
  RedrawLine(absl::StrCat(label_, " ",
                          BarText(static_cast<double>(done) / static_cast<double>(total_), 24), " ",
                          HumanBytes(done), " of ", HumanBytes(total_)));
}

void ProgressBar::Done() {
  if (drawn_) ClearLine();
  drawn_ = false;
}

}  // namespace tundra::client
