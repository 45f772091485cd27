#include "worker/model/safetensors.h"

#include <cstring>

#include "common/files.h"
#include "common/status_test_util.h"

namespace tundra {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

std::string FileOf(const std::string& json, size_t data_bytes) {
  const uint64_t length = json.size();
  std::string file(reinterpret_cast<const char*>(&length), 8);
  return file + json + std::string(data_bytes, 'd');
}

std::string TwoTensors() {
  static const float a[] = {1, 2, 3, 4, 5, 6};
  static const uint16_t b[] = {7, 8};
  return WriteSafetensors(
      {{"b", StoredType::kBF16, {2}, {reinterpret_cast<const char*>(b), 4}},
       {"a", StoredType::kF32, {2, 3}, {reinterpret_cast<const char*>(a), 24}}},
      {{"format", "pt"}});
}

TEST(Safetensors, ReadsBackWhatItWrote) {
  TempDir dir;
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir / "x", TwoTensors()));
  TUNDRA_ASSERT_OK_AND_ASSIGN(const SafetensorsFile file, SafetensorsFile::Open(dir / "x"));
  EXPECT_EQ(file.header().metadata.at("format"), "pt");
  const TensorEntry* a = file.header().Find("a");
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(a->shape, (Shape{2, 3}));
  float last[2];
  TUNDRA_ASSERT_OK(file.Read(*a, 16, 8, last));
  EXPECT_EQ(last[0], 5);
  EXPECT_EQ(last[1], 6);
  EXPECT_EQ(file.header().data_begin % 8, 0u);
}

TEST(Safetensors, OrderDoesNotDependOnTheOrderGiven) {
  const std::string one = TwoTensors();
  static const float a[] = {1, 2, 3, 4, 5, 6};
  static const uint16_t b[] = {7, 8};
  const std::string two = WriteSafetensors(
      {{"a", StoredType::kF32, {2, 3}, {reinterpret_cast<const char*>(a), 24}},
       {"b", StoredType::kBF16, {2}, {reinterpret_cast<const char*>(b), 4}}},
      {{"format", "pt"}});
  EXPECT_EQ(one, two);
}

TEST(Safetensors, TruncationAtEveryByteIsRefused) {
  const std::string whole = TwoTensors();
  for (size_t size = 0; size < whole.size(); ++size) {
    const absl::Status status =
        ParseSafetensorsHeader(std::string_view(whole).substr(0, size), size, "x").status();
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("x: ")))
        << "cut to " << size;
  }
  EXPECT_FALSE(ParseSafetensorsHeader(whole, whole.size() + 1, "x").ok());
}

TEST(Safetensors, FlippedHeaderBitsNeverCrashAndNeverReachOutsideTheFile) {
  const std::string whole = TwoTensors();
  uint64_t length = 0;
  std::memcpy(&length, whole.data(), 8);
  for (size_t byte = 0; byte < 8 + length; ++byte) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string flipped = whole;
      flipped[byte] = static_cast<char>(flipped[byte] ^ (1 << bit));
      const auto header = ParseSafetensorsHeader(flipped, flipped.size(), "x");
      if (!header.ok()) continue;
      for (const TensorEntry& tensor : header->tensors) {
        EXPECT_LE(tensor.end, flipped.size());
        EXPECT_EQ(static_cast<int64_t>(tensor.end - tensor.begin),
                  NumElements(tensor.shape) * StoredSize(tensor.type));
      }
    }
  }
}

struct Bad {
  const char* json;
  size_t data;
  const char* why;
};

class BadHeaders : public ::testing::TestWithParam<Bad> {};

TEST_P(BadHeaders, AreRefusedWithTheReason) {
  const std::string file = FileOf(GetParam().json, GetParam().data);
  EXPECT_THAT(ParseSafetensorsHeader(file, file.size(), "dir/model.safetensors"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       ::testing::AllOf(HasSubstr("dir/model.safetensors"), HasSubstr(GetParam().why))));
}

INSTANTIATE_TEST_SUITE_P(
    Safetensors, BadHeaders,
    ::testing::Values(
        Bad{"[]", 0, "not a JSON object"}, Bad{"{", 0, "not JSON"},
        Bad{R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "takes 8"},
        Bad{R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
            4, "overlapping"},
        Bad{R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})",
            12, "hole"},
        Bad{R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 8, "belong to no tensor"},
        Bad{R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
            4, "twice"},
        Bad{R"({"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}})", 1, "not supported"},
        Bad{R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "in range"},
        Bad{R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0,
            "in range"},
        Bad{R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4, "not in order"},
        Bad{R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}})", 4,
            "the file ends here"},
        Bad{R"({"a":{"dtype":"F32","shape":[1]}})", 4, "not {dtype"},
        Bad{R"({"__metadata__":{"x":1}})", 0, "is not text"},
        Bad{R"({"a":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]})", 0,
            "deep"}));

TEST(Safetensors, AnOverlongHeaderIsRefusedUnread) {
  const uint64_t length = kMaxSafetensorsHeaderBytes + 1;
  const std::string file = std::string(reinterpret_cast<const char*>(&length), 8) + "{}";
  EXPECT_THAT(ParseSafetensorsHeader(file, uint64_t{1} << 40, "x"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("over the limit")));
}

}  // namespace
}  // namespace tundra
