// Lists: their order, where they go on, and that page tokens and etags tell nothing of other
// tenants.
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/sha256.h"
#include "common/status_test_util.h"
#include "coordinator/api/page_tokens.h"
#include "coordinator/testing/harness.h"

namespace tundra::coordinator {
namespace {

using ::testing::_;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::StatusIs;

TEST(PageTokens, GoOnWhereTheyWereMadeAndNowhereElse) {
  const PageTokens tokens("a secret");
  for (const int64_t position :
       {int64_t{0}, int64_t{1}, int64_t{255}, int64_t{1} << 40, INT64_MAX}) {
    const std::string token = tokens.Make("jobs", "state = QUEUED", position);
    EXPECT_EQ(*tokens.Parse(token, "jobs", "state = QUEUED", 7), position);
    EXPECT_EQ(token, tokens.Make("jobs", "state = QUEUED", position))
        << "an unchanged page has the same bytes";
    EXPECT_THAT(
        tokens.Parse(token, "jobs", "", 7),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("begin with the first page")));
    EXPECT_THAT(tokens.Parse(token, "datasets", "state = QUEUED", 7),
                StatusIs(absl::StatusCode::kInvalidArgument, _));
    EXPECT_THAT(PageTokens("another").Parse(token, "jobs", "state = QUEUED", 7),
                StatusIs(absl::StatusCode::kInvalidArgument, _));
  }
  EXPECT_EQ(*tokens.Parse("", "jobs", "", 7), 7);
  // Whatever is changed of one, it is none.
  const std::string token = tokens.Make("jobs", "", 5);
  for (size_t i = 0; i < token.size(); ++i) {
    std::string forged = token;
    forged[i] = forged[i] == 'A' ? 'B' : 'A';
    // The last character has bits that are no part of the bytes.
    if (i + 1 == token.size()) continue;
    EXPECT_FALSE(tokens.Parse(forged, "jobs", "", 0).ok()) << i;
  }
  for (const std::string& bad : {token + "A", token.substr(1), std::string("x"),
                                 std::string(1000, 'A'), std::string("\0\xff", 2)}) {
    EXPECT_FALSE(tokens.Parse(bad, "jobs", "", 0).ok()) << absl::CHexEscape(bad);
  }
}

TEST(PageTokens, TellNothingOfThePosition) {
  const PageTokens tokens("a secret");
  std::string before;
  for (int64_t position = 1000; position < 1100; ++position) {
    std::string bytes;
    ASSERT_TRUE(absl::WebSafeBase64Unescape(tokens.Make("jobs", "", position), &bytes));
    ASSERT_EQ(bytes.size(), 16);
    // Half of the bits differ from the token before: 64, and hardly ever under 30.
    if (!before.empty()) {
      int differ = 0;
      for (size_t i = 0; i < bytes.size(); ++i) {
        differ += __builtin_popcount(static_cast<unsigned char>(bytes[i] ^ before[i]));
      }
      EXPECT_GT(differ, 30) << position;
    }
    before = bytes;
  }
}

TEST(PageTokens, TheirSecretOutlivesTheProcess) {
  const TempDir dir;
  const std::string token = PageTokens::Open(dir.path())->Make("jobs", "", 5);
  EXPECT_EQ(*PageTokens::Open(dir.path())->Parse(token, "jobs", "", 0), 5);
  const TempDir other;
  EXPECT_FALSE(PageTokens::Open(other.path())->Parse(token, "jobs", "", 0).ok());
  TUNDRA_ASSERT_OK(WriteFileAtomically(other / "page_token_secret", "short"));
  EXPECT_THAT(PageTokens::Open(other.path()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("openssl rand")));
}

class ListsTest : public CoordinatorHarness {
 protected:
  grpc::Status List(const v1::ListJobsRequest& request, v1::ListJobsResponse* response) {
    grpc::ClientContext context;
    return jobs_->ListJobs(&context, request, response);
  }
  v1::ListMetricsResponse Metrics(const v1::ListMetricsRequest& request) {
    grpc::ClientContext context;
    v1::ListMetricsResponse response;
    status_ = jobs_->ListMetrics(&context, request, &response);
    return response;
  }
  v1::ListEventsResponse Events(const v1::ListEventsRequest& request) {
    grpc::ClientContext context;
    v1::ListEventsResponse response;
    status_ = jobs_->ListEvents(&context, request, &response);
    return response;
  }
  grpc::Status status_;
};

TEST_F(ListsTest, JobsComeInEitherOrderWithTokensOfTheirOwn) {
  const auto worker = NewWorker("worker-1", 1);
  for (int i = 0; i < 5; ++i) {
    v1::CreateJobRequest request = JobRequest(1, 8);
    request.mutable_job()->set_display_name(absl::StrCat("job ", i));
    Create(request);
  }
  std::map<std::string, std::string> tokens;
  for (const auto& [order, wanted] : std::map<std::string, std::string>{
           {"", "43|21|0|"}, {"create_time desc", "43|21|0|"}, {"create_time", "01|23|4|"}}) {
    v1::ListJobsRequest request;
    request.set_page_size(2);
    request.set_filter("state = QUEUED");
    request.set_order_by(order);
    std::string names;
    do {
      v1::ListJobsResponse response;
      ASSERT_TRUE(List(request, &response).ok());
      for (const v1::Job& job : response.jobs()) names += job.display_name().substr(4);
      names += "|";
      if (request.page_token().empty()) tokens[order] = response.next_page_token();
      request.set_page_token(response.next_page_token());
      // In the middle of a list the service may be started anew.
      if (names.size() == 3) Restart();
    } while (!request.page_token().empty());
    EXPECT_EQ(names, wanted) << order;
  }
  v1::ListJobsRequest request;
  request.set_filter("state = QUEUED");
  request.set_order_by("create_time");
  request.set_page_token(tokens[""]);
  v1::ListJobsResponse response;
  EXPECT_THAT(ViolatedFields(List(request, &response)), ElementsAre("page_token"))
      << "a token of the other order";
  request.set_page_token("");
  request.set_order_by("name");
  EXPECT_THAT(ViolatedFields(List(request, &response)), ElementsAre("order_by"));
}

// The tokens of version 0.1.0 before they were encrypted: the row's number and a hash.
TEST_F(ListsTest, ATokenOfAnEarlierVersionIsRefusedWithTheRemedy) {
  v1::ListJobsRequest request;
  request.set_page_token(absl::WebSafeBase64Escape(
      absl::StrCat("5.", Sha256Hex(absl::StrCat("jobs\n\n", 5)).substr(0, 16))));
  v1::ListJobsResponse response;
  const grpc::Status status = List(request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("begin with the first page"));
}

TEST_F(ListsTest, AnEtagChangesWithTheJobAndTellsNoRow) {
  const auto worker = NewWorker("worker-1", 1);
  const v1::Job first = Create(JobRequest(1, 8));
  const v1::Job second = Create(JobRequest(1, 8));
  EXPECT_EQ(Get(first.name()).etag(), first.etag());
  EXPECT_NE(first.etag(), second.etag());
  EXPECT_EQ(first.etag().size(), second.etag().size());
  ASSERT_TRUE(Pause(first.name()).ok());
  EXPECT_NE(Get(first.name()).etag(), first.etag());
}

TEST_F(ListsTest, OnlyWhatIsNewOfATimeline) {
  const auto worker = NewWorker("worker-1", 1);
  const std::string name = Create(JobRequest(6)).name();
  ASSERT_TRUE(worker->JoinGroup(1));
  worker->job().set_phase(v1::TRAINING);
  worker->AddSteps(1, 4);
  worker->Send();
  ASSERT_TRUE(worker->WaitForAck([](const v1::JobAck& a) { return a.metrics_step() == 4; }));

  v1::ListMetricsRequest request;
  request.set_parent(name);
  const v1::ListMetricsResponse all = Metrics(request);
  ASSERT_EQ(all.metrics_size(), 4);
  request.set_after_sequence(all.metrics(1).sequence());
  request.set_page_size(1);
  const v1::ListMetricsResponse third = Metrics(request);
  ASSERT_EQ(third.metrics_size(), 1);
  EXPECT_EQ(third.metrics(0).step(), 3);
  request.set_page_token(third.next_page_token());
  EXPECT_EQ(Metrics(request).metrics(0).step(), 4);
  request.set_after_sequence(all.metrics(0).sequence());
  Metrics(request);
  EXPECT_THAT(ViolatedFields(status_), ElementsAre("page_token")) << "a token of another start";
  request.clear_page_token();
  request.set_after_sequence(all.metrics(3).sequence());
  EXPECT_EQ(Metrics(request).metrics_size(), 0);

  worker->AddSteps(5, 5);
  worker->Send();
  ASSERT_TRUE(worker->WaitForAck([](const v1::JobAck& a) { return a.metrics_step() == 5; }));
  const v1::ListMetricsResponse fresh = Metrics(request);
  ASSERT_EQ(fresh.metrics_size(), 1);
  EXPECT_EQ(fresh.metrics(0).step(), 5);
  request.set_after_sequence(-1);
  Metrics(request);
  EXPECT_THAT(ViolatedFields(status_), ElementsAre("after_sequence"));

  v1::ListEventsRequest events;
  events.set_parent(name);
  const v1::ListEventsResponse told = Events(events);
  ASSERT_GE(told.events_size(), 2);
  events.set_after_sequence(told.events(told.events_size() - 2).sequence());
  ASSERT_EQ(Events(events).events_size(), 1);
  EXPECT_EQ(Events(events).events(0).sequence(), told.events(told.events_size() - 1).sequence());
  events.set_after_sequence(-1);
  Events(events);
  EXPECT_THAT(ViolatedFields(status_), ElementsAre("after_sequence"));
}

}  // namespace
}  // namespace tundra::coordinator
