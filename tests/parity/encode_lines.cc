// encode_lines: Tundra's tokenizer behind a pipe, for tests/parity/tokenizer_live.py.
//
//   encode_lines TOKENIZER_JSON < lines
//
// Each line of the input is a JSON string; the answer is a line
// {"ids": […], "special": […], "offsets": [[begin, end], …], "text": "…"} with
// byte offsets, and `text` = the ids decoded again, or {"error": "…"}.
//
//   encode_lines --time TOKENIZER_JSON FILE SECONDS
//
// encodes the file's lines again and again, on one thread, with a warm cache
// and with a new one, and prints the speeds, in CPU time.
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "common/text/tokenizer.h"

namespace {

using nlohmann::json;

std::string ReadFile(const char* path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    std::fprintf(stderr, "encode_lines: can't read %s\n", path);
    std::exit(2);
  }
  return std::string(std::istreambuf_iterator<char>(in), {});
}

std::unique_ptr<tundra::Tokenizer> Load(const char* path) {
  auto tokenizer = tundra::Tokenizer::FromJson(ReadFile(path), path);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "encode_lines: %s\n", tokenizer.status().ToString().c_str());
    std::exit(3);
  }
  return std::move(*tokenizer);
}

json Answer(const tundra::Tokenizer& tokenizer, const std::string& text) {
  const auto plain = tokenizer.EncodeWithOffsets(text, false);
  if (!plain.ok()) return {{"error", plain.status().ToString()}};
  const auto special = tokenizer.Encode(text, true);
  if (!special.ok()) return {{"error", special.status().ToString()}};
  return {{"ids", plain->ids},
          {"special", *special},
          {"offsets", plain->offsets},
          {"text", tokenizer.Decode(plain->ids, false)}};
}

double CpuSeconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

// Millions of bytes a second over `lines`, for at least `seconds`.
double Speed(const tundra::Tokenizer& tokenizer, const std::vector<std::string>& lines,
             double seconds) {
  const double start = CpuSeconds();
  size_t bytes = 0;
  double spent = 0;
  do {
    for (const std::string& line : lines) {
      const auto ids = tokenizer.Encode(line, false);
      if (!ids.ok()) {
        std::fprintf(stderr, "encode_lines: %s\n", ids.status().ToString().c_str());
        std::exit(3);
      }
      bytes += line.size();
    }
    spent = CpuSeconds() - start;
  } while (spent < seconds);
  return static_cast<double>(bytes) / spent / 1e6;
}

int Time(const char* tokenizer_json, const char* file, double seconds) {
  const std::string text = ReadFile(file);
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  const double start = CpuSeconds();
  const auto tokenizer = Load(tokenizer_json);
  const double load = CpuSeconds() - start;
  const double cold = Speed(*tokenizer, lines, 0);
  const double warm = Speed(*tokenizer, lines, seconds);
  std::printf("load %.2f s, cold %.1f MB/s, warm %.1f MB/s\n", load, cold, warm);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 5 && std::string_view(argv[1]) == "--time") {
    return Time(argv[2], argv[3], std::atof(argv[4]));
  }
  if (argc != 2) {
    std::fprintf(stderr,
                 "usage: encode_lines TOKENIZER_JSON < lines\n"
                 "       encode_lines --time TOKENIZER_JSON FILE SECONDS\n");
    return 2;
  }
  const auto tokenizer = Load(argv[1]);
  for (std::string line; std::getline(std::cin, line);) {
    const json text = json::parse(line, nullptr, false);
    if (!text.is_string()) {
      std::fprintf(stderr, "encode_lines: not a JSON string: %s\n", line.c_str());
      return 2;
    }
    std::cout << Answer(*tokenizer, text.get<std::string>()).dump() << "\n";
  }
  return 0;
}
