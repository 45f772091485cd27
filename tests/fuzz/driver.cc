// Runs a fuzz target without libFuzzer: the committed corpus, what is left of its files when they
// are cut anywhere, and mutations of them that depend on the seed alone. So every compiler and
// every ordinary build checks the parsers, in a bounded number of runs.
//
//   fuzz_NAME CORPUS [--runs N] [--seed S] [--timeout SECONDS] [--artifacts DIR]
//
// CORPUS is a folder, or one file to run alone. The process ends with an error at the first input
// on which the target crashes, throws, allocates more than there is reason to, or takes longer
// than the timeout; the input is then in DIR/fuzz_NAME-fault, and the message says so.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <new>
#include <string>
#include <vector>

#include "tests/fuzz/mutate.h"
#include "tests/fuzz/target.h"

// What sanitizers, where the program is built with them, ask at its start: they tell of a fault
// themselves, and then abort, so that OnFault keeps the input.
extern "C" const char* __asan_default_options() {
  return "abort_on_error=1:handle_abort=0:handle_segv=2:handle_sigbus=2:handle_sigfpe=2:"
         "handle_sigill=2";
}
extern "C" const char* __ubsan_default_options() { return "abort_on_error=1:print_stacktrace=1"; }
extern "C" const char* __tsan_default_options() { return "abort_on_error=1:halt_on_error=1"; }

namespace tundra::fuzz {
namespace {

// Of all that is asked for during one input, freed or not: it stands for time and memory alike,
// and is the same on every machine.
constexpr uint64_t kMaxBytes = uint64_t{1} << 30;

struct Options {
  std::string corpus;
  uint64_t runs = 1000;
  uint64_t seed = 1;
  unsigned timeout = 30;
  std::string artifacts = ".";
};

// What the handler of a signal may look at.
const uint8_t* current_data = nullptr;
size_t current_size = 0;
char artifact_path[4096];
std::atomic<bool> running = false;

std::atomic<uint64_t> allocated = 0;

void Say(const char* text) {
  [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, text, std::strlen(text));
}

// Only what a handler of signals may do.
void OnFault(int signal) {
  if (running) {
    const int fd = ::open(artifact_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    size_t done = 0;
    while (fd >= 0 && done < current_size) {
      const ssize_t n = ::write(fd, current_data + done, current_size - done);
      if (n <= 0) break;
      done += static_cast<size_t>(n);
    }
    if (fd >= 0) ::close(fd);
    Say(signal == SIGALRM ? "fuzz: an input takes too long; it is in "
                          : "fuzz: an input crashes the target; it is in ");
    Say(artifact_path);
    Say("\n");
  }
  running = false;
  ::signal(signal, SIG_DFL);
  if (signal == SIGALRM) ::_exit(3);
  ::raise(signal);
}

void InstallHandlers() {
  // A stack of its own, so that an endless recursion can still be told.
  static char stack[64 << 10];
  const stack_t alternate{.ss_sp = stack, .ss_flags = 0, .ss_size = sizeof(stack)};
  ::sigaltstack(&alternate, nullptr);
  struct sigaction action {};
  action.sa_handler = OnFault;
  action.sa_flags = SA_ONSTACK;
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM}) {
    ::sigaction(signal, &action, nullptr);
  }
}

void RunOne(const std::string& input, const Options& options) {
  // A copy of exactly this size on the heap, so that sanitizers see a read beyond its end.
  uint8_t* const data = static_cast<uint8_t*>(std::malloc(std::max<size_t>(input.size(), 1)));
  std::copy(input.begin(), input.end(), data);
  current_data = data;
  current_size = input.size();
  allocated = 0;
  ::alarm(options.timeout);
  running = true;
  LLVMFuzzerTestOneInput(data, input.size());
  running = false;
  ::alarm(0);
  std::free(data);
}

std::vector<std::string> ReadCorpus(const std::string& path) {
  std::vector<std::string> names;
  if (std::filesystem::is_directory(path)) {
    for (const auto& entry : std::filesystem::directory_iterator(path)) {
      names.push_back(entry.path().string());
    }
  } else {
    names.push_back(path);
  }
  std::sort(names.begin(), names.end());
  std::vector<std::string> inputs;
  for (const std::string& name : names) {
    std::ifstream in(name, std::ios::binary);
    if (!in) {
      std::fprintf(stderr, "fuzz: cannot read %s\n", name.c_str());
      std::exit(2);
    }
    inputs.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  if (inputs.empty()) {
    std::fprintf(stderr, "fuzz: %s is an empty corpus\n", path.c_str());
    std::exit(2);
  }
  return inputs;
}

[[noreturn]] void Usage(const char* program) {
  std::fprintf(stderr,
               "usage: %s CORPUS [--runs N] [--seed S] [--timeout SECONDS] [--artifacts DIR]\n",
               program);
  std::exit(2);
}

Options ParseOptions(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word.rfind("--", 0) != 0) {
      options.corpus = word;
      continue;
    }
    if (i + 1 == argc) Usage(argv[0]);
    const std::string value = argv[++i];
    if (word == "--runs") {
      options.runs = std::strtoull(value.c_str(), nullptr, 10);
    } else if (word == "--seed") {
      options.seed = std::strtoull(value.c_str(), nullptr, 10);
    } else if (word == "--timeout") {
      options.timeout = static_cast<unsigned>(std::strtoul(value.c_str(), nullptr, 10));
    } else if (word == "--artifacts") {
      options.artifacts = value;
    } else {
      Usage(argv[0]);
    }
  }
  if (options.corpus.empty()) Usage(argv[0]);
  return options;
}

int Main(int argc, char** argv) {
  const Options options = ParseOptions(argc, argv);
  const std::string name = std::filesystem::path(argv[0]).filename().string();
  std::snprintf(artifact_path, sizeof(artifact_path), "%s/%s-fault", options.artifacts.c_str(),
                name.c_str());
  const std::vector<std::string> corpus = ReadCorpus(options.corpus);
  InstallHandlers();
  for (const std::string& input : corpus) RunOne(input, options);
  uint64_t runs = corpus.size();
  if (std::filesystem::is_directory(options.corpus)) {
    RunOne("", options);
    // Half of the runs are cuts, so that small files are cut at each byte.
    const std::vector<std::string> cuts = Truncations(corpus, options.runs / 2);
    for (const std::string& input : cuts) RunOne(input, options);
    Mutator mutator(options.seed, corpus);
    for (uint64_t i = cuts.size(); i < options.runs; ++i) RunOne(mutator.Next(), options);
    runs += 1 + std::max<uint64_t>(options.runs, cuts.size());
  }
  std::printf("%s: %llu inputs\n", name.c_str(), static_cast<unsigned long long>(runs));
  return 0;
}

// Counts an allocation; over the bound, the target is at fault.
void Count(size_t size) {
  if (!running || allocated.fetch_add(size, std::memory_order_relaxed) + size <= kMaxBytes) return;
  Say("fuzz: over 1 GiB was allocated for one input\n");
  std::abort();
}

}  // namespace
}  // namespace tundra::fuzz

// Counted; else as ever.
void* operator new(size_t size) {
  tundra::fuzz::Count(size);
  if (void* const memory = std::malloc(std::max<size_t>(size, 1)); memory != nullptr) return memory;
  throw std::bad_alloc();
}
void* operator new[](size_t size) { return operator new(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }

int main(int argc, char** argv) { return tundra::fuzz::Main(argc, argv); }
