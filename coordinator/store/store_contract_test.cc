// What every Store promises. Run for each implementation.
#include <gtest/gtest.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/sha256.h"
#include "common/status_test_util.h"
#include "coordinator/store/sqlite_store.h"

namespace tundra::coordinator {
namespace {

using ::testing::_;
using ::testing::HasSubstr;
using testing::StatusIs;

const absl::Time kNow = absl::FromUnixSeconds(1'700'000'000);

class StoreContractTest : public ::testing::Test {
 protected:
  void SetUp() override { Reopen(); }

  // As after a restart of the process.
  void Reopen() {
    store_.reset();
    SqliteOptions options;
    options.data_dir = dir_ / "a folder with spaces";
    absl::StatusOr<std::unique_ptr<Store>> store = OpenSqliteStore(options);
    TUNDRA_ASSERT_OK(store);
    store_ = *std::move(store);
  }

  JobRecord NewJob(const std::string& id, const std::string& name = "a job") {
    JobRecord made;
    const absl::Status status = store_->Write([&](Txn& txn) -> absl::Status {
      JobRecord record;
      record.id.value = id;
      record.job.set_name("jobs/" + id);
      record.job.set_display_name(name);
      record.job.set_state(v1::QUEUED);
      record.job.mutable_spec()->set_base("tiny");
      record.job.mutable_spec()->mutable_lora()->set_alpha(0.1 + 0.2);
      record.job.mutable_spec()->mutable_dataset()->set_train("datasets/d1");
      (*record.job.mutable_labels())["team"] = name;
      JobDraft draft(record, kNow);
      draft.AddEvent("Accepted");
      absl::Status s = txn.InsertJob(draft);
      made = draft.record();
      return s;
    });
    TUNDRA_EXPECT_OK(status);
    return made;
  }

  JobRecord Get(const std::string& id) {
    JobRecord record;
    TUNDRA_EXPECT_OK(store_->Read([&](ReadTxn& txn) -> absl::Status {
      absl::StatusOr<JobRecord> got = txn.GetJob({id});
      if (got.ok()) record = *got;
      return got.status();
    }));
    return record;
  }

  absl::Status Change(const std::string& id, std::function<absl::Status(JobDraft&)> fn) {
    return store_->Write([&](Txn& txn) -> absl::Status {
      absl::StatusOr<JobRecord> record = txn.GetJob({id});
      if (!record.ok()) return record.status();
      JobDraft draft(*record, kNow);
      absl::Status status = fn(draft);
      if (!status.ok()) return status;
      return txn.SaveJob(draft);
    });
  }

  TempDir dir_;
  std::unique_ptr<Store> store_;
};

TEST_F(StoreContractTest, KeepsAJobExactlyAcrossAReopen) {
  const JobRecord made = NewJob("job-1");
  EXPECT_EQ(made.key, 1);
  Reopen();
  const JobRecord got = Get("job-1");
  EXPECT_EQ(got.job.SerializeAsString(), made.job.SerializeAsString());
  EXPECT_EQ(got.job.spec().lora().alpha(), 0.1 + 0.2);
  EXPECT_EQ(got.last_sequence, 1);
}

TEST_F(StoreContractTest, AFailedWriteKeepsNothingOfIt) {
  NewJob("job-1");
  const absl::Status status = store_->Write([&](Txn& txn) -> absl::Status {
    absl::StatusOr<JobRecord> record = txn.GetJob({"job-1"});
    JobDraft draft(*record, kNow);
    TUNDRA_EXPECT_OK(draft.Move(v1::STARTING, "starts"));
    TUNDRA_EXPECT_OK(txn.SaveJob(draft));
    GroupRecord group;
    group.id.value = "group-1";
    TUNDRA_EXPECT_OK(txn.PutGroup(group));
    EXPECT_EQ(txn.GetJob({"job-1"})->job.state(), v1::STARTING);  // sees its own write
    return absl::CancelledError("changed my mind");
  });
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kCancelled, _));
  EXPECT_EQ(Get("job-1").job.state(), v1::QUEUED);
  TUNDRA_EXPECT_OK(store_->Read([](ReadTxn& txn) {
    EXPECT_TRUE(txn.ListGroups()->empty());
    return absl::OkStatus();
  }));
}

TEST_F(StoreContractTest, FirstTerminalCommitWins) {
  NewJob("job-1");
  TUNDRA_ASSERT_OK(Change("job-1", [](JobDraft& d) { return d.Move(v1::CANCELLED, "first"); }));
  EXPECT_THAT(Change("job-1", [](JobDraft& d) { return d.Move(v1::FAILED, "second"); }),
              StatusIs(absl::StatusCode::kFailedPrecondition, _));
  EXPECT_EQ(Get("job-1").job.state(), v1::CANCELLED);
}

TEST_F(StoreContractTest, AWriteOnAnOldReadingIsRefused) {
  const JobRecord old = NewJob("job-1");
  TUNDRA_ASSERT_OK(Change("job-1", [](JobDraft& d) {
    d.AddEvent("something");
    return absl::OkStatus();
  }));
  const absl::Status status = store_->Write([&](Txn& txn) {
    JobDraft draft(old, kNow);
    return txn.SaveJob(draft);
  });
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kAborted, HasSubstr("changed")));
}

TEST_F(StoreContractTest, EventsAndMetricsShareOneSequenceAndStepsAreStoredOnce) {
  NewJob("job-1");
  const auto append = [&](std::vector<int64_t> steps) {
    int stored = -1;
    TUNDRA_EXPECT_OK(store_->Write([&](Txn& txn) -> absl::Status {
      JobDraft draft(*txn.GetJob({"job-1"}), kNow);
      std::vector<v1::StepMetrics> metrics;
      for (const int64_t step : steps) {
        metrics.emplace_back().set_step(step);
        metrics.back().set_train_loss(1.0 / 3 * static_cast<double>(step));
      }
      stored = *txn.AppendMetrics(draft, metrics);
      draft.AddEvent("more");
      return txn.SaveJob(draft);
    }));
    return stored;
  };
  EXPECT_EQ(append({0, 1, 2}), 3);
  EXPECT_EQ(append({1, 2, 3}), 1);
  TUNDRA_EXPECT_OK(store_->Read([&](ReadTxn& txn) {
    const JobRecord job = *txn.GetJob({"job-1"});
    const std::vector<TimelineItem> all = *txn.ReadTimeline(job, 0, TimelineKind::kAll, 100);
    int64_t last = 0;
    for (const TimelineItem& item : all) {
      const int64_t sequence =
          std::visit([](const auto& message) { return message.sequence(); }, item);
      EXPECT_GT(sequence, last);
      last = sequence;
    }
    EXPECT_EQ(all.size(), 7u);
    EXPECT_EQ(last, job.last_sequence);
    EXPECT_EQ(txn.ReadTimeline(job, 0, TimelineKind::kMetrics, 100)->size(), 4u);
    EXPECT_EQ(txn.ReadTimeline(job, 0, TimelineKind::kEvents, 2)->size(), 2u);
    const auto rest = *txn.ReadTimeline(job, last - 1, TimelineKind::kAll, 100);
    EXPECT_EQ(rest.size(), 1u);
    EXPECT_EQ(std::get<v1::StepMetrics>((*txn.ReadTimeline(job, 0, TimelineKind::kMetrics, 100))[3])
                  .train_loss(),
              1.0);
    return absl::OkStatus();
  }));
}

TEST_F(StoreContractTest, ListsByFilterNewestFirstInPages) {
  for (int i = 0; i < 5; ++i) NewJob(absl::StrCat("job-", i), i % 2 == 0 ? "even" : "odd");
  TUNDRA_ASSERT_OK(Change("job-4", [](JobDraft& d) { return d.Move(v1::PAUSED, ""); }));
  TUNDRA_EXPECT_OK(store_->Read([&](ReadTxn& txn) {
    const auto ids = [&](JobQuery query) {
      std::string out;
      const std::vector<JobRecord> jobs = *txn.ListJobs(query);
      for (const JobRecord& job : jobs) out += job.id.value.substr(4);
      return out;
    };
    using Field = JobFilterTerm::Field;
    EXPECT_EQ(ids({}), "43210");
    EXPECT_EQ(ids({.terms = {}, .before_key = 4, .limit = 2}), "21");
    EXPECT_EQ(ids({.terms = {}, .oldest_first = true}), "01234");
    EXPECT_EQ(ids({.terms = {}, .after_key = 2, .oldest_first = true, .limit = 2}), "23");
    EXPECT_EQ(ids({.terms = {{Field::kState, "", "QUEUED", false}},
                   .after_key = 1,
                   .oldest_first = true}),
              "123");
    EXPECT_EQ(ids({.terms = {{Field::kDisplayName, "", "even", false}}}), "420");
    EXPECT_EQ(ids({.terms = {{Field::kDisplayName, "", "even", true}}}), "31");
    EXPECT_EQ(ids({.terms = {{Field::kState, "", "PAUSED", false}}}), "4");
    EXPECT_EQ(ids({.terms = {{Field::kLabel, "team", "odd", false}}}), "31");
    EXPECT_EQ(ids({.terms = {{Field::kLabel, "nobody", "odd", true},
                             {Field::kState, "", "QUEUED", false}}}),
              "3210");
    EXPECT_EQ(ids({.terms = {{Field::kBase, "", "tiny", false}}, .before_key = 3}), "10");
    EXPECT_EQ(ids({.terms = {{Field::kDisplayName, "", "VE", false, true}}}), "420");
    EXPECT_EQ(ids({.terms = {{Field::kDisplayName, "", "%", false, true}}}), "");
    EXPECT_EQ(ids({.terms = {{Field::kDisplayName, "", "' OR 1=1 --", false}}}), "");
    EXPECT_EQ((*txn.CountJobs())[v1::QUEUED], 4);
    EXPECT_EQ(txn.ListActiveJobs()->front().id.value, "job-0");
    return absl::OkStatus();
  }));
}

TEST_F(StoreContractTest, BlobsAreKeptWhileSomethingRefersToThem) {
  const std::string data = Sha256Hex("data"), state = Sha256Hex("state");
  NewJob("job-1");
  TUNDRA_ASSERT_OK(store_->Write([&](Txn& txn) -> absl::Status {
    for (const std::string& sha : {data, state}) {
      TUNDRA_EXPECT_OK(txn.PutBlob({{sha}, 5, kNow}));
    }
    DatasetRecord dataset;
    dataset.id.value = "d1";
    dataset.dataset.set_sha256(data);
    TUNDRA_EXPECT_OK(txn.InsertDataset(dataset));
    CheckpointRecord checkpoint;
    checkpoint.checkpoint.set_step(7);
    checkpoint.checkpoint.set_sha256(state);
    return txn.PutCheckpoint(*txn.GetJob({"job-1"}), checkpoint);
  }));
  const auto loose = [&] {
    std::vector<BlobId> ids;
    TUNDRA_EXPECT_OK(store_->Read([&](ReadTxn& txn) {
      // Those that were referred to need no grace.
      ids = *txn.UnreferencedBlobs(kNow, 10);
      EXPECT_EQ(txn.JobUsingDataset({"d1"})->value, "job-1");
      return absl::OkStatus();
    }));
    return ids.size();
  };
  EXPECT_EQ(loose(), 0u);
  TUNDRA_ASSERT_OK(
      store_->Write([&](Txn& txn) { return txn.DeleteCheckpoint(*txn.GetJob({"job-1"}), 7); }));
  EXPECT_EQ(loose(), 1u);
  TUNDRA_ASSERT_OK(store_->Write([&](Txn& txn) { return txn.DeleteDataset({"d1"}); }));
  EXPECT_EQ(loose(), 2u);
  // Others wait for whoever uploads them to say what they are for; one that has come again too.
  TUNDRA_ASSERT_OK(store_->Write([&](Txn& txn) {
    TUNDRA_EXPECT_OK(txn.PutBlob({{state}, 5, kNow}));
    return txn.PutBlob({{Sha256Hex("new")}, 5, kNow});
  }));
  EXPECT_EQ(loose(), 1u);
  TUNDRA_EXPECT_OK(store_->Read([&](ReadTxn& txn) {
    EXPECT_EQ(txn.UnreferencedBlobs(kNow + absl::Seconds(1), 10)->size(), 3u);
    return absl::OkStatus();
  }));
}

TEST_F(StoreContractTest, TheNewestCheckpointOfEachJobInAStateComesInOneAnswer) {
  const JobRecord first = NewJob("job-1"), second = NewJob("job-2"), queued = NewJob("job-3");
  NewJob("job-4");
  for (const char* const id : {"job-1", "job-2", "job-4"}) {
    TUNDRA_ASSERT_OK(
        Change(id, [](JobDraft& draft) { return draft.Move(v1::STARTING, "starts"); }));
  }
  TUNDRA_ASSERT_OK(store_->Write([&](Txn& txn) -> absl::Status {
    for (const auto& [job, step] : {std::pair{first, 5}, {first, 9}, {second, 2}, {queued, 3}}) {
      CheckpointRecord checkpoint;
      checkpoint.checkpoint.set_step(step);
      checkpoint.final = step == 9;
      TUNDRA_EXPECT_OK(txn.PutCheckpoint(job, checkpoint));
    }
    return absl::OkStatus();
  }));
  TUNDRA_EXPECT_OK(store_->Read([&](ReadTxn& txn) {
    const auto newest = *txn.NewestCheckpoints(v1::STARTING);
    EXPECT_EQ(newest.size(), 2u) << "neither that of another state nor one of a job without any";
    EXPECT_EQ(newest.at(first.key).checkpoint.step(), 9);
    EXPECT_TRUE(newest.at(first.key).final);
    EXPECT_EQ(newest.at(second.key).checkpoint.step(), 2);
    EXPECT_TRUE(txn.NewestCheckpoints(v1::RUNNING)->empty());
    return absl::OkStatus();
  }));
}

TEST_F(StoreContractTest, DeletingAJobLeavesNothingOfIt) {
  const JobRecord made = NewJob("job-1");
  TUNDRA_ASSERT_OK(store_->Write([&](Txn& txn) {
    CheckpointRecord checkpoint;
    checkpoint.checkpoint.set_step(1);
    checkpoint.checkpoint.set_sha256(Sha256Hex("x"));
    TUNDRA_EXPECT_OK(txn.PutBlob({{Sha256Hex("x")}, 1, kNow}));
    return txn.PutCheckpoint(made, checkpoint);
  }));
  TUNDRA_ASSERT_OK(store_->Write([&](Txn& txn) { return txn.DeleteJob(made); }));
  TUNDRA_EXPECT_OK(store_->Read([&](ReadTxn& txn) {
    EXPECT_THAT(txn.GetJob({"job-1"}), StatusIs(absl::StatusCode::kNotFound, _));
    EXPECT_TRUE(txn.ReadTimeline(made, 0, TimelineKind::kAll, 10)->empty());
    EXPECT_TRUE(txn.ListCheckpoints(made, INT64_MAX, 10)->empty());
    EXPECT_EQ(txn.UnreferencedBlobs(kNow, 10)->size(), 1u);
    return absl::OkStatus();
  }));
  // Keys are never used again.
  EXPECT_GT(NewJob("job-2").key, made.key);
}

TEST_F(StoreContractTest, KeepsGroupsBasesReportsRequestsAndUploads) {
  GroupRecord group{.id = {"group-1"},
                    .epoch = 3,
                    .base = {"h"},
                    .precision = v1::BF16,
                    .numerics_class = "c",
                    .build = "b",
                    .shards = 2,
                    .members = {{{"w1"}, 0, "run1"}, {{"w\"2"}, 1, "run2"}},
                    .job = {"job-1"},
                    .attempt = 9,
                    .resume_step = -1};
  v1::BaseInfo info;
  info.mutable_base()->set_display_name("tiny");
  v1::ValidationReport report;
  report.set_rows(12);
  UploadRecord upload;
  upload.id = "u1";
  upload.create_time = kNow;
  TUNDRA_ASSERT_OK(store_->Write([&](Txn& txn) -> absl::Status {
    TUNDRA_EXPECT_OK(txn.PutGroup(group));
    TUNDRA_EXPECT_OK(txn.PutBase({"h"}, info));
    TUNDRA_EXPECT_OK(txn.PutBase({"h"}, info));
    TUNDRA_EXPECT_OK(txn.PutReport("k", {"data"}, report, kNow));
    TUNDRA_EXPECT_OK(txn.PutUpload(upload));
    return txn.PutRequest({"CreateJob", "r", "hash", "job-1", kNow});
  }));
  Reopen();
  TUNDRA_EXPECT_OK(store_->Read([&](ReadTxn& txn) {
    const std::vector<GroupRecord> groups = *txn.ListGroups();
    EXPECT_EQ(groups.size(), 1u);
    EXPECT_EQ(groups.at(0).members, group.members);
    EXPECT_EQ(groups.at(0).epoch, 3);
    EXPECT_EQ(groups.at(0).resume_step, -1);
    EXPECT_EQ(groups.at(0).precision, v1::BF16);
    EXPECT_EQ(txn.ListBases()->size(), 1u);
    EXPECT_EQ(txn.GetBase({"h"})->info.base().display_name(), "tiny");
    EXPECT_EQ(txn.GetReport("k")->rows(), 12);
    EXPECT_EQ(txn.GetRequest("CreateJob", "r")->resource, "job-1");
    EXPECT_THAT(txn.GetRequest("DeleteJob", "r"), StatusIs(absl::StatusCode::kNotFound, _));
    EXPECT_TRUE(txn.UploadsBefore(kNow)->empty());
    EXPECT_EQ(txn.UploadsBefore(kNow + absl::Seconds(1))->size(), 1u);
    return absl::OkStatus();
  }));
}

TEST_F(StoreContractTest, ManyThreadsWriteAndReadAtOnce) {
  NewJob("job-1");
  constexpr int kThreads = 8, kWrites = 25;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kWrites; ++i) {
        TUNDRA_EXPECT_OK(Change("job-1", [](JobDraft& d) {
          d.AddEvent("tick");
          return absl::OkStatus();
        }));
        // A read sees a whole transaction: the row agrees with the timeline.
        TUNDRA_EXPECT_OK(store_->Read([&](ReadTxn& txn) {
          const JobRecord job = *txn.GetJob({"job-1"});
          EXPECT_EQ(
              static_cast<int64_t>(txn.ReadTimeline(job, 0, TimelineKind::kAll, 10'000)->size()),
              job.last_sequence);
          return absl::OkStatus();
        }));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Get("job-1").last_sequence, 1 + kThreads * kWrites);
}

TEST_F(StoreContractTest, TenantsTokensWorkersAndAuditAreKept) {
  TokenRecord token{.key = 0,
                    .id = {"token-1"},
                    .secret_hash = Sha256Hex("secret"),
                    .tenant = {"red"},
                    .role = v1::ROLE_USER,
                    .display_name = "nightly",
                    .create_time = kNow,
                    .expire_time = kNow + absl::Hours(1)};
  TUNDRA_ASSERT_OK(store_->Write([&](Txn& txn) -> absl::Status {
    TenantRecord tenant{.id = {"red"}, .quota = {}, .create_time = kNow};
    tenant.quota.set_devices(3);
    absl::Status status = txn.PutTenant(tenant);
    status.Update(txn.InsertToken(token));
    TokenRecord forever = token;
    forever.id = {"token-2"};
    forever.secret_hash = Sha256Hex("another");
    forever.expire_time = absl::InfiniteFuture();
    status.Update(txn.InsertToken(forever));
    status.Update(txn.PutWorker({.id = {"w"}, .identity = "first", .drained = false}));
    status.Update(txn.PutWorker({.id = {"w"}, .identity = "second", .drained = true}));
    for (int i = 0; i < 5; ++i) {
      v1::AuditEntry entry;
      entry.set_method(absl::StrCat("M", i));
      status.Update(txn.AppendAudit(entry));
      EXPECT_EQ(entry.sequence(), i + 1);
    }
    return status;
  }));
  Reopen();
  TUNDRA_ASSERT_OK(store_->Read([&](ReadTxn& txn) {
    EXPECT_EQ(txn.GetTenant({"red"})->quota.devices(), 3);
    EXPECT_THAT(txn.GetTenant({"blue"}), StatusIs(absl::StatusCode::kNotFound, HasSubstr("blue")));
    EXPECT_EQ(txn.ListTenants()->size(), 2u) << "\"default\" is always there";
    EXPECT_EQ(txn.CountTenant({"red"})->tokens, 2);
    const auto tokens = *txn.ListTokens();
    EXPECT_EQ(tokens.size(), 2u);
    EXPECT_EQ(tokens[0].id.value, "token-2") << "newest first";
    EXPECT_EQ(tokens[0].expire_time, absl::InfiniteFuture());
    EXPECT_EQ(tokens[1].expire_time, token.expire_time);
    EXPECT_EQ(tokens[1].secret_hash, token.secret_hash);
    EXPECT_EQ(tokens[1].role, v1::ROLE_USER);
    const auto workers = *txn.ListWorkers();
    EXPECT_EQ(workers.size(), 1u);
    EXPECT_EQ(workers[0].identity, "second");
    EXPECT_TRUE(workers[0].drained);
    const auto audit = *txn.ListAudit(5, 2);
    EXPECT_EQ(audit.size(), 2u);
    EXPECT_EQ(audit[0].method(), "M3");
    return absl::OkStatus();
  }));
  TUNDRA_ASSERT_OK(store_->Write([&](Txn& txn) -> absl::Status {
    absl::Status status = txn.KeepAudit(2);
    EXPECT_EQ(txn.ListAudit(INT64_MAX, 10)->size(), 2u);
    status.Update(txn.DeleteToken({"token-1"}));
    EXPECT_EQ(txn.ListTokens()->size(), 1u);
    status.Update(txn.DeleteTenant({"red"}));
    EXPECT_EQ(txn.ListTenants()->size(), 1u);
    return status;
  }));
}

TEST_F(StoreContractTest, ReportsAreFewAndGoWithTheLastDataSetOfTheirRows) {
  const BlobId data{Sha256Hex("rows")};
  v1::ValidationReport report;
  TUNDRA_ASSERT_OK(store_->Write([&](Txn& txn) -> absl::Status {
    absl::Status status = txn.PutBlob({data, 4, kNow});
    for (const char* const id : {"d1", "d2"}) {
      DatasetRecord record;
      record.id.value = id;
      record.dataset.set_sha256(data.value);
      status.Update(txn.InsertDataset(record));
    }
    for (int i = 0; i < 20; ++i) {
      status.Update(txn.PutReport(absl::StrCat("k", i), data, report, kNow + absl::Seconds(i)));
    }
    status.Update(txn.PutReport("other", {Sha256Hex("other rows")}, report, kNow));
    return status;
  }));
  TUNDRA_ASSERT_OK(store_->Write([&](Txn& txn) -> absl::Status {
    EXPECT_FALSE(txn.GetReport("k3").ok()) << "the newest 16 are kept";
    EXPECT_TRUE(txn.GetReport("k4").ok());
    EXPECT_TRUE(txn.GetReport("k19").ok());
    TUNDRA_EXPECT_OK(txn.DeleteDataset({"d1"}));
    EXPECT_TRUE(txn.GetReport("k19").ok()) << "there is another data set of the same rows";
    TUNDRA_EXPECT_OK(txn.DeleteDataset({"d2"}));
    EXPECT_FALSE(txn.GetReport("k19").ok());
    EXPECT_TRUE(txn.GetReport("other").ok());
    return absl::OkStatus();
  }));
}

TEST_F(StoreContractTest, UploadsCountEachFileOnceAndGoWithTheirTenant) {
  const std::string config = Sha256Hex("config"), weights = Sha256Hex("weights");
  UploadRecord upload;
  upload.tenant.value = "red";
  upload.create_time = kNow;
  upload.adapter.add_files()->set_sha256(config);
  TUNDRA_ASSERT_OK(store_->Write([&](Txn& txn) -> absl::Status {
    absl::Status status = txn.PutTenant({{"red"}, {}, kNow});
    status.Update(txn.PutBlob({{config}, 3, kNow}));
    status.Update(txn.PutBlob({{weights}, 40, kNow}));
    upload.id = "u1";
    status.Update(txn.PutUpload(upload));
    upload.id = "u2";
    upload.adapter.add_files()->set_sha256(weights);
    status.Update(txn.PutUpload(upload));
    upload.create_time += absl::Hours(1);
    status.Update(txn.PutUpload(upload));
    status.Update(txn.PutRequest({"red/CreateJob", "r", "hash", "job-1", kNow}));
    status.Update(txn.PutRequest({"redder/CreateJob", "r", "hash", "job-2", kNow}));
    return status;
  }));
  TUNDRA_ASSERT_OK(store_->Write([&](Txn& txn) -> absl::Status {
    EXPECT_EQ(txn.CountTenant({"red"})->dataset_bytes, 43);
    EXPECT_EQ(txn.CountTenant({"blue"})->dataset_bytes, 0);
    EXPECT_EQ(txn.UploadsWith({"red"}, {config})->size(), 2u);
    EXPECT_EQ(txn.UploadsWith({"red"}, {weights})->at(0).id, "u2");
    EXPECT_EQ(txn.UploadsWith({"red"}, {weights})->at(0).create_time, upload.create_time);
    EXPECT_TRUE(txn.UploadsWith({"blue"}, {weights})->empty());
    TUNDRA_EXPECT_OK(txn.DeleteTenant({"red"}));
    EXPECT_THAT(txn.GetUpload("u1"), StatusIs(absl::StatusCode::kNotFound, _));
    EXPECT_THAT(txn.GetUpload("u2"), StatusIs(absl::StatusCode::kNotFound, _));
    EXPECT_EQ(txn.UnreferencedBlobs(kNow, 10)->size(), 2u);
    EXPECT_THAT(txn.GetRequest("red/CreateJob", "r"), StatusIs(absl::StatusCode::kNotFound, _));
    EXPECT_TRUE(txn.GetRequest("redder/CreateJob", "r").ok());
    return absl::OkStatus();
  }));
}

TEST_F(StoreContractTest, QueriesOfATenantSeeItsOwnAlone) {
  NewJob("of-default");
  TUNDRA_ASSERT_OK(store_->Write([&](Txn& txn) -> absl::Status {
    JobRecord job;
    job.id.value = "of-red";
    job.tenant.value = "red";
    job.job.set_state(v1::QUEUED);
    JobDraft draft(job, kNow);
    absl::Status status = txn.InsertJob(draft);
    const std::string sha256 = Sha256Hex("x");
    status.Update(txn.PutBlob({{sha256}, 7, kNow}));
    DatasetRecord data;
    data.id.value = "d-red";
    data.tenant.value = "red";
    data.dataset.set_sha256(sha256);
    data.dataset.set_display_name("x.jsonl");
    status.Update(txn.InsertDataset(data));
    return status;
  }));
  TUNDRA_ASSERT_OK(store_->Read([&](ReadTxn& txn) {
    JobQuery query;
    EXPECT_EQ(txn.ListJobs(query)->size(), 2u);
    query.tenant.value = "red";
    query.terms.push_back({JobFilterTerm::Field::kState, "", "QUEUED", false});
    const auto jobs = *txn.ListJobs(query);
    EXPECT_EQ(jobs.size(), 1u);
    EXPECT_EQ(jobs[0].id.value, "of-red");
    EXPECT_EQ(jobs[0].tenant.value, "red");
    EXPECT_EQ(txn.ListDatasets({}, INT64_MAX, 10)->size(), 1u);
    EXPECT_EQ(txn.ListDatasets({"red"}, INT64_MAX, 10)->size(), 1u);
    EXPECT_EQ(txn.ListDatasets({"blue"}, INT64_MAX, 10)->size(), 0u);
    EXPECT_TRUE(txn.FindDataset({"red"}, Sha256Hex("x"), "x.jsonl").ok());
    EXPECT_THAT(txn.FindDataset({"blue"}, Sha256Hex("x"), "x.jsonl"),
                StatusIs(absl::StatusCode::kNotFound, _));
    const auto red = *txn.CountTenant({"red"});
    EXPECT_EQ(red.jobs, 1);
    EXPECT_EQ(red.active_jobs, 1);
    EXPECT_EQ(red.datasets, 1);
    EXPECT_EQ(red.dataset_bytes, 7);
    return absl::OkStatus();
  }));
}

}  // namespace
}  // namespace tundra::coordinator
