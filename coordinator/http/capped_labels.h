// Values of a label, of which there may be many: the first ones that come keep their name, all
// later ones are `other`, so that series have a bound whatever users and callers make up.
#pragma once

#include <set>
#include <string>

namespace tundra::coordinator {

// Not thread-safe.
class CappedLabels {
 public:
  // `limit`: names that are kept.
  CappedLabels(size_t limit, std::string other) : limit_(limit), other_(std::move(other)) {}

  const std::string& Of(const std::string& value) {
    const auto known = known_.find(value);
    if (known != known_.end()) return *known;
    return known_.size() < limit_ ? *known_.insert(value).first : other_;
  }

 private:
  const size_t limit_;
  const std::string other_;
  std::set<std::string> known_;
};

}  // namespace tundra::coordinator
