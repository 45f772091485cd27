// What "every kernel and operation is tested" rests on: the list of kernels is read from the
// sources, that of operations from ops.h; each kernel must have been launched by the suite in
// this program, each operation must be called by the suite.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

#include "tests/emulation/block.h"

namespace tundra {
namespace {

std::string Source(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// What `pattern`'s first group matches in the files of `folder` that end so.
std::set<std::string> Names(const std::string& folder, const std::string& ending,
                            const std::string& pattern) {
  const char* source = std::getenv("TUNDRA_SOURCE_DIR");
  std::set<std::string> names;
  if (source == nullptr) return names;
  const std::regex expression(pattern);
  for (const auto& entry : std::filesystem::directory_iterator(std::string(source) + folder)) {
    const std::string file = entry.path().filename().string();
    if (file.size() < ending.size() || !file.ends_with(ending)) continue;
    const std::string text = Source(entry.path());
    for (std::sregex_iterator i(text.begin(), text.end(), expression), end; i != end; ++i) {
      names.insert((*i)[1].str());
    }
  }
  return names;
}

std::set<std::string> Kernels() {
  return Names("/worker/cuda", ".cu",
               R"(__global__\s+void\s+(?:__launch_bounds__\([^;{]*?\)\s+)?(\w+)\s*\()");
}

// Runs after the last test of the program, if it was told to run all of them.
class EveryKernelRan : public testing::Environment {
 public:
  void TearDown() override {
    if (testing::GTEST_FLAG(filter) != "*") {
      std::cout << "Kernel coverage is not checked: a filter is set\n";
      return;
    }
    const std::set<std::string> kernels = Kernels();
    EXPECT_GT(kernels.size(), 10u) << "set TUNDRA_SOURCE_DIR";
    size_t ran = 0;
    for (const std::string& kernel : kernels) {
      const int64_t launches = emulation::Launches(kernel);
      std::cout << "kernel " << kernel << ": " << launches << " launches\n";
      EXPECT_GT(launches, 0) << kernel << " is never launched by the suite";
      ran += launches > 0 ? 1 : 0;
    }
    std::cout << ran << " of " << kernels.size() << " kernels ran\n";
  }
};
const testing::Environment* const kEnvironment =
    testing::AddGlobalTestEnvironment(new EveryKernelRan);

TEST(Coverage, EveryOperationIsCalledByTheSuite) {
  const std::set<std::string> operations =
      Names("/worker/ops", "ops.h", R"(virtual [\w:<>]+\*? (\w+)\()");
  const std::set<std::string> called =
      Names("/worker/ops", "_test.cc", R"(ops(?:\(\))?\s*\.(\w+)\()");
  EXPECT_GT(operations.size(), 25u) << "set TUNDRA_SOURCE_DIR";
  size_t covered = 0;
  for (const std::string& operation : operations) {
    // The device is the bed's; its own test covers it.
    if (operation == "device") continue;
    EXPECT_TRUE(called.contains(operation)) << operation << " is in no test of the suite";
    covered += called.contains(operation) ? 1 : 0;
  }
  std::cout << covered << " of " << operations.size() - 1 << " operations are in the suite\n";
}

TEST(Coverage, KernelsAreFoundInTheSources) {
  const std::set<std::string> kernels = Kernels();
  for (const char* name : {"AddKernel", "GemmKernel", "RmsNormKernel", "CrossEntropyKernel"}) {
    EXPECT_TRUE(kernels.contains(name)) << name;
  }
  EXPECT_EQ(emulation::Launches("NoSuchKernel"), 0);
}

}  // namespace
}  // namespace tundra
