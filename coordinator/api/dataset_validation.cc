#include "coordinator/api/dataset_validation.h"

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "common/text/base_text.h"
#include "common/text/validate.h"

namespace tundra::coordinator {
namespace {

LossOn ToText(v1::LossOn loss_on) {
  switch (loss_on) {
    case v1::COMPLETION:
      return LossOn::kCompletion;
    case v1::ALL:
      return LossOn::kAll;
    default:
      // What "assistant" means for rows that have no turns, the format decides.
      return LossOn::kDefault;
  }
}

std::string FormatName(DatasetFormat format) {
  std::string name(DatasetFormatName(format));
  for (char& c : name) {
    if (c == '-') c = '_';
  }
  return name;
}

// "NAME:LINE: what", or of the whole file "NAME: what", as a line and what.
void SplitFinding(const std::string& text, const std::string& name, v1::Finding* finding) {
  finding->set_message(text);
  if (text.rfind(name + ":", 0) != 0) return;
  if (text.rfind(name + ": ", 0) == 0) return finding->set_message(text.substr(name.size() + 2));
  const std::string rest = text.substr(name.size() + 1);
  const size_t colon = rest.find(':');
  if (colon == std::string::npos || colon == 0 || colon > 18 ||
      rest.find_first_not_of("0123456789") != colon) {
    return;
  }
  finding->set_line(std::stoll(rest.substr(0, colon)));
  const size_t start = rest.find_first_not_of(' ', colon + 1);
  finding->set_message(start == std::string::npos ? "" : rest.substr(start));
}

v1::ValidationReport ToProto(const DatasetReport& in, const std::string& name) {
  v1::ValidationReport out;
  out.set_valid(in.ok());
  out.set_format(in.format == DatasetFormat::kUnknown ? "" : FormatName(in.format));
  out.set_rows(static_cast<int64_t>(in.rows));
  out.set_tokens(static_cast<int64_t>(in.total_tokens));
  out.set_target_tokens(static_cast<int64_t>(in.target_tokens));
  out.set_longest_row(static_cast<int64_t>(in.longest_row));
  for (const std::string& error : in.errors) SplitFinding(error, name, out.add_errors());
  uint64_t error_count = 0;
  for (const auto& [kind, count] : in.error_counts) error_count += count;
  out.set_error_count(static_cast<int64_t>(std::max<uint64_t>(error_count, in.errors.size())));
  for (const std::string& warning : in.warnings) SplitFinding(warning, name, out.add_warnings());
  out.set_warning_count(static_cast<int64_t>(in.warnings.size()));
  for (const auto& [bound, count] : in.length_histogram) {
    out.add_length_bounds(static_cast<int64_t>(bound));
    out.add_length_counts(static_cast<int64_t>(count));
  }
  for (const PreviewRow& row : in.preview) {
    v1::PreviewRow* const preview = out.add_preview();
    preview->set_line(static_cast<int64_t>(row.line));
    for (const PreviewToken& token : row.tokens) {
      v1::PreviewToken* const t = preview->add_tokens();
      t->set_id(token.id);
      t->set_text(token.text);
      t->set_trained(token.trained);
    }
  }
  return out;
}

class TextValidator : public DatasetValidator {
 public:
  absl::StatusOr<v1::ValidationReport> Validate(const ValidationInput& input) override {
    ASSIGN_OR_RETURN(const std::shared_ptr<const BaseText> base,
                     BaseText::FromFiles(input.base_files, input.base_name));
    DatasetOptions options;
    options.max_seq_length = input.max_seq_length;
    options.truncate = input.truncate;
    options.loss_on = ToText(input.loss_on);
    options.max_errors = 20;
    ASSIGN_OR_RETURN(
        const DatasetReport report,
        ValidateDataset(input.bytes, input.display_name, base, options, input.preview_rows));
    return ToProto(report, input.display_name);
  }
};

}  // namespace

std::unique_ptr<DatasetValidator> NewTextValidator() { return std::make_unique<TextValidator>(); }

}  // namespace tundra::coordinator
