// What commands print: aligned tables for people, JSON for scripts, errors on
// standard error, and the exit codes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"

namespace google::protobuf {
class Message;
}

namespace tundra::client {

enum ExitCode { kOk = 0, kJobFailed = 1, kBadInput = 2, kUnreachable = 3 };

// kUnreachable for UNAVAILABLE and DEADLINE_EXCEEDED, else kBadInput.
int ExitCodeOf(const absl::Status& status);

// Prints "tundra: MESSAGE" on standard error and returns the exit code.
int Fail(const absl::Status& status);

// Whether names and texts can be sent.
bool IsUtf8(const std::string& text);

// Text of others (data, models, names, messages) for a terminal: control characters but line
// breaks and tabs as "\x1b", so that they are seen and do nothing.
std::string Printable(std::string_view text);
// As Printable, line breaks and tabs too: for a name, which must not make lines of its own.
std::string PrintableLine(std::string_view text);

// Whether standard output is a terminal that takes colours and cursor moves.
bool OnTerminal();
// Columns of the terminal; 80 when unknown.
int TerminalWidth();

// The message as JSON with the proto's field names. One line with `compact`.
std::string ToJson(const google::protobuf::Message& message, bool compact = false);

class Table {
 public:
  explicit Table(std::vector<std::string> header) : rows_{std::move(header)} {}
  // Cells may hold text of others: control characters are shown as by PrintableLine.
  void Add(const std::vector<std::string>& row);
  // Columns as wide as their widest cell (in characters), two spaces between.
  std::string Render() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

// "3.2 MB", "512 B".
std::string HumanBytes(int64_t bytes);
// "1.2M", "830".
std::string HumanCount(double count);
// "1:02:03", "02:03".
std::string HumanDuration(absl::Duration duration);
// "2026-01-31 12:00:00" in local time, or "" when unset.
std::string HumanTime(const google::protobuf::Timestamp& time);
absl::Duration ToDuration(const google::protobuf::Duration& duration);

}  // namespace tundra::client
