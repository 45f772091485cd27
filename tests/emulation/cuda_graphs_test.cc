// Training whose layers are launched as graphs: the same bits as kernel by kernel, whatever changes
// between the passes. On an emulated device (cuda_graphs_test) and on a card
// (cuda_graphs_card_test).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/status_test_util.h"
#include "tests/emulation/cuda_graphs_device.h"
#include "worker/model/layer_graphs.h"

namespace tundra {
namespace {

// What a pass gives: losses, and the gradients in the order in which they left.
struct Pass {
  std::vector<double> losses;
  std::vector<float> gradients;
  bool operator==(const Pass&) const = default;
};

class CudaGraphs : public ::testing::Test {
 protected:
  void Open(int shards) {
    const std::string dir = GoldenDir() + "/gqa_tied_bf16";
    weights_.Reset();  // before its device
    TUNDRA_ASSERT_OK_AND_ASSIGN(base_,
                                TestBase::Open(dir + "/base", {.shards = shards,
                                                               .precision = Precision::kBF16,
                                                               .open_device = OpenGraphsDevice}));
    rows_ = GoldenRows(LoadJson(dir + "/golden.json"));
    absl::StatusOr<LoraLayout> layout =
        LoraLayout::Make(base_->config, {.rank = 2, .dropout = 0.1});
    TUNDRA_ASSERT_OK(layout);
    layout_ = std::make_unique<LoraLayout>(*std::move(layout));
    std::vector<float> adapter(static_cast<size_t>(layout_->parameters()));
    for (size_t i = 0; i < adapter.size(); ++i) {
      adapter[i] = 0.01f * static_cast<float>(static_cast<int>(i * 37 % 101) - 50);
    }
    TUNDRA_ASSERT_OK_AND_ASSIGN(weights_, base_->device->Allocate(adapter.size() * sizeof(float)));
    TUNDRA_ASSERT_OK_AND_ASSIGN(const auto stream, base_->device->CreateStream());
    const Ctx ctx{stream.get(), nullptr};
    TUNDRA_ASSERT_OK(base_->device->CopyIn(ctx, weights_.data(), adapter.data(), weights_.size()));
    TUNDRA_ASSERT_OK(base_->device->Synchronize(ctx));
  }

  // One micro-batch of these rows.
  Pass Train(Llama& model, const std::vector<size_t>& picked, const DropoutKey& dropout = {},
             Recompute recompute = Recompute::kNone) {
    std::vector<OwnedRow> rows;
    for (const size_t row : picked) rows.push_back(rows_[row]);
    const absl::StatusOr<Batch> batch = BatchOf(rows, base_->config.vocab);
    EXPECT_TRUE(batch.ok()) << batch.status();
    const AdapterView adapter{layout_.get(),
                              weights_.Matrix(DType::kF32, 1, layout_->parameters())};
    Pass pass;
    pass.losses.resize(1);
    const auto sink = [&](int, int, int, ConstView grad) -> absl::Status {
      std::vector<float> values(static_cast<size_t>(grad.cols));
      RETURN_IF_ERROR(base_->device->CopyOut(model.ctx(), values.data(), grad.data, grad.bytes()));
      RETURN_IF_ERROR(base_->device->Synchronize(model.ctx()));
      pass.gradients.insert(pass.gradients.end(), values.begin(), values.end());
      return absl::OkStatus();
    };
    const absl::Status done =
        model.Train({&*batch, 1}, adapter, dropout, recompute, sink, pass.losses);
    EXPECT_TRUE(done.ok()) << done;
    return pass;
  }

  std::unique_ptr<TestBase> base_;
  std::vector<OwnedRow> rows_;
  std::unique_ptr<LoraLayout> layout_;
  Buffer weights_;
};

TEST_F(CudaGraphs, TrainToTheSameBitsAsKernelByKernel) {
  for (const int shards : {1, 2}) {
    Open(shards);
    TUNDRA_ASSERT_OK_AND_ASSIGN(const auto with, base_->NewModel(128));
    TUNDRA_ASSERT_OK_AND_ASSIGN(const auto without, base_->NewModel(128, false));
    const int64_t layers = 2 * base_->config.layers;  // there and back
    const int64_t before = GraphsThatTheRuntimeLaunched().value_or(0);
    const Pass first = Train(*without, {0, 1});
    // Memory settles in the first pass, and with it everything's place; the second does the work
    // by itself. From then on it is graphs, for other tokens and other rows too.
    for (int i = 0; i < 2; ++i) EXPECT_EQ(Train(*with, {0, 1}), first);
    int64_t launches = with->graph_launches();
    EXPECT_LT(launches, layers);
    EXPECT_EQ(Train(*with, {0, 1}), first);
    EXPECT_EQ(with->graph_launches(), launches += layers);
    EXPECT_EQ(Train(*with, {4, 0, 1}), Train(*without, {4, 0, 1}));
    EXPECT_EQ(with->graph_launches(), launches += layers);
    // Never with dropout.
    const DropoutKey dropout{.seed = 5, .step = 1, .probability = 0.1f};
    EXPECT_EQ(Train(*with, {0, 1}, dropout), Train(*without, {0, 1}, dropout));
    EXPECT_EQ(with->graph_launches(), launches);
    // Recomputation is other work, in other places; and the sums have one order.
    for (int i = 0; i < 3; ++i) EXPECT_EQ(Train(*with, {0, 1}, {}, Recompute::kFull), first);
    EXPECT_GT(with->graph_launches(), launches);
    EXPECT_EQ(Train(*with, {0, 1}), first);
    EXPECT_EQ(without->graph_launches(), 0);
    if (const std::optional<int64_t> after = GraphsThatTheRuntimeLaunched()) {
      EXPECT_EQ(*after - before, with->graph_launches());
    }
  }
}

// A memory that grows is another memory.
TEST_F(CudaGraphs, AreForgottenWhenTheirMemoryGoes) {
  Open(1);
  TUNDRA_ASSERT_OK_AND_ASSIGN(const auto with, base_->NewModel(256));
  TUNDRA_ASSERT_OK_AND_ASSIGN(const auto without, base_->NewModel(256, false));
  const std::vector<size_t> few = {0, 1}, many = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  const Pass want_few = Train(*without, few), want_many = Train(*without, many);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Train(*with, few), want_few);
  const int64_t launches = with->graph_launches();
  EXPECT_GT(launches, 0);
  EXPECT_EQ(Train(*with, many), want_many);
  EXPECT_EQ(with->graph_launches(), launches);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(Train(*with, few), want_few);
  EXPECT_GT(with->graph_launches(), launches);
}

TEST_F(CudaGraphs, TheOldestGoWhenThereAreTooMany) {
  TUNDRA_ASSERT_OK_AND_ASSIGN(TestDevice opened, OpenGraphsDevice());
  TUNDRA_ASSERT_OK_AND_ASSIGN(const auto stream, opened.device->CreateStream());
  const Ctx ctx{stream.get(), nullptr};
  TUNDRA_ASSERT_OK_AND_ASSIGN(const Buffer buffer, opened.device->Allocate(4));
  LayerGraphs graphs(opened.device.get());
  graphs.Reserve(8);
  int called = 0;
  const auto work = [&]() -> absl::Status {
    ++called;
    return opened.device->Zero(ctx, buffer.data(), 4);
  };
  for (uint64_t key = 0; key < 20; ++key) {
    for (int i = 0; i < 3; ++i) TUNDRA_ASSERT_OK(graphs.Run(ctx, {key, 7}, work));
    EXPECT_LE(graphs.size(), 9u);
  }
  EXPECT_EQ(called, 40);  // once by itself, once captured
  EXPECT_EQ(graphs.launches(), 40);
  // The latest is still there, the first is not.
  TUNDRA_ASSERT_OK(graphs.Run(ctx, {19, 7}, work));
  EXPECT_EQ(called, 40);
  TUNDRA_ASSERT_OK(graphs.Run(ctx, {0, 7}, work));
  EXPECT_EQ(called, 41);
  // What fails while it is captured is an error, and the stream goes on.
  const auto bad = [&]() -> absl::Status { return absl::InternalError("refused"); };
  TUNDRA_ASSERT_OK(graphs.Run(ctx, {1, 1}, work));
  EXPECT_EQ(graphs.Run(ctx, {1, 1}, bad).message(), "refused");
  TUNDRA_ASSERT_OK(graphs.Run(ctx, {1, 1}, work));
  TUNDRA_ASSERT_OK(graphs.Clear(ctx));
  EXPECT_EQ(graphs.size(), 0u);
}

}  // namespace
}  // namespace tundra
