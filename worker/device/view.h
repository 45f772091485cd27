// Element types and two-dimensional views: how every operation sees device memory.
//
// A view is a pointer with a shape; it owns nothing. Rows may be further apart
// than their length (`stride`), so that a slice of columns is a view too. Vectors
// are views of one row. The memory may be on a device: only that device's
// operations look at it.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

namespace tundra {

// kF64 and kI64 serve scalars and exact sums; products take kF32 and kBF16.
enum class DType : uint8_t { kF32, kBF16, kI32, kI64, kF64 };

constexpr size_t DTypeSize(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBF16:
      return 2;
    case DType::kI64:
    case DType::kF64:
      return 8;
  }
  return 0;
}

constexpr std::string_view DTypeName(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "f32";
    case DType::kBF16:
      return "bf16";
    case DType::kI32:
      return "i32";
    case DType::kI64:
      return "i64";
    case DType::kF64:
      return "f64";
  }
  return "?";
}

// The upper half of an IEEE float. A type of its own, so that it never mixes with
// integers by accident.
struct BF16 {
  uint16_t bits = 0;
  bool operator==(const BF16&) const = default;
};
static_assert(sizeof(BF16) == 2);

// Round to nearest, ties to even. NaN stays NaN (made quiet), infinities stay.
constexpr BF16 ToBF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    return BF16{static_cast<uint16_t>((bits >> 16) | 0x0040u)};
  }
  return BF16{static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}
constexpr float ToFloat(BF16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

template <typename T>
constexpr DType DTypeOf();
template <>
constexpr DType DTypeOf<float>() {
  return DType::kF32;
}
template <>
constexpr DType DTypeOf<BF16>() {
  return DType::kBF16;
}
template <>
constexpr DType DTypeOf<int32_t>() {
  return DType::kI32;
}
template <>
constexpr DType DTypeOf<int64_t>() {
  return DType::kI64;
}
template <>
constexpr DType DTypeOf<double>() {
  return DType::kF64;
}

// VoidPtr is `void*` (View) or `const void*` (ConstView). Sizes count elements.
template <typename VoidPtr>
struct BasicView {
  static constexpr bool kConst = std::is_same_v<VoidPtr, const void*>;
  template <typename T>
  using Pointer = std::conditional_t<kConst, const T*, T*>;

  VoidPtr data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;  // elements from one row to the next, >= cols

  BasicView() = default;
  BasicView(VoidPtr data, DType dtype, int64_t rows, int64_t cols, int64_t stride)
      : data(data), dtype(dtype), rows(rows), cols(cols), stride(stride) {}
  // A View is also a ConstView.
  template <typename Other>
  requires(kConst&& std::is_same_v<Other, void*>) BasicView(const BasicView<Other>& other)
      : BasicView(other.data, other.dtype, other.rows, other.cols, other.stride) {}

  // A matrix whose rows lie end to end; a vector of n elements; nothing.
  static BasicView Matrix(VoidPtr data, DType dtype, int64_t rows, int64_t cols) {
    return {data, dtype, rows, cols, cols};
  }
  static BasicView Vector(VoidPtr data, DType dtype, int64_t n) { return {data, dtype, 1, n, n}; }
  static BasicView None() { return {}; }

  bool empty() const { return data == nullptr; }
  int64_t size() const { return rows * cols; }
  size_t bytes() const { return static_cast<size_t>(size()) * DTypeSize(dtype); }
  bool contiguous() const { return stride == cols || rows <= 1; }

  // Rows, or columns, [begin, begin + count).
  BasicView Rows(int64_t begin, int64_t count) const {
    return {At(begin, 0), dtype, count, cols, stride};
  }
  BasicView Cols(int64_t begin, int64_t count) const {
    return {At(0, begin), dtype, rows, count, stride};
  }
  // The same memory seen as one row. Only for contiguous views.
  BasicView Flat() const { return {data, dtype, 1, size(), size()}; }

  VoidPtr At(int64_t r, int64_t c) const {
    return static_cast<Pointer<std::byte>>(data) +
           (r * stride + c) * static_cast<int64_t>(DTypeSize(dtype));
  }
  // The typed pointer to a row. The caller has checked the dtype.
  template <typename T>
  Pointer<T> row(int64_t r) const {
    return static_cast<Pointer<T>>(data) + r * stride;
  }
};

using View = BasicView<void*>;
using ConstView = BasicView<const void*>;

}  // namespace tundra
