// The web server against a coordinator in this process: the JSON API's rules, the headers that
// keep other sites out, and what a hostile or broken client must not be able to do.
#include "coordinator/http/web_server.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/sha256.h"
#include "common/status_test_util.h"
#include "coordinator/http/page_files.h"
#include "coordinator/testing/harness.h"

namespace tundra::coordinator {
namespace {

using nlohmann::json;
using ::testing::Contains;
using ::testing::HasSubstr;

constexpr char kListJobs[] = "/tundra.v1.JobService/ListJobs";

// A plain socket, for requests that no client library would send.
class RawClient {
 public:
  explicit RawClient(int port) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    const timeval patience{.tv_sec = 60, .tv_usec = 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  }
  ~RawClient() { ::close(fd_); }
  // False once the server has closed.
  bool Send(const std::string& bytes) {
    return ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(bytes.size());
  }
  // All until the server closes.
  std::string ReadToEnd() {
    std::string all;
    char bytes[4096];
    for (;;) {
      const ssize_t got = ::recv(fd_, bytes, sizeof(bytes), 0);
      if (got <= 0) return all;
      all.append(bytes, static_cast<size_t>(got));
    }
  }

 private:
  const int fd_;
};

class WebServerTest : public CoordinatorHarness {
 protected:
  void SetUp() override {
    CoordinatorHarness::SetUp();
    client_ = std::make_unique<httplib::Client>("127.0.0.1", coordinator_->web_port());
    client_->set_read_timeout(60);
  }
  // A second server on the same API, with other limits.
  std::unique_ptr<WebServer> Serve(WebOptions options) {
    options.address = "127.0.0.1:0";
    options.api = channel_;
    auto server = StartWebServer(std::move(options));
    EXPECT_TRUE(server.ok()) << server.status();
    return *std::move(server);
  }
  httplib::Result Post(const std::string& path, const std::string& body,
                       httplib::Headers headers = {}) {
    return client_->Post(path, headers, body, "application/json");
  }
  static json Body(const httplib::Result& result) {
    EXPECT_TRUE(result) << "no answer";
    return result ? json::parse(result->body, nullptr, false) : json();
  }
  std::unique_ptr<httplib::Client> client_;
};

TEST_F(WebServerTest, CallsAMethodAndAnswersInJson) {
  const auto worker = NewWorker("w", 1);
  const v1::Job made = Create(JobRequest(3));
  const auto result = Post("/tundra.v1.JobService/GetJob", json{{"name", made.name()}}.dump());
  ASSERT_TRUE(result);
  EXPECT_EQ(result->status, 200);
  EXPECT_EQ(result->get_header_value("Content-Type"), "application/json");
  const json job = Body(result);
  EXPECT_EQ(job["name"], made.name());
  EXPECT_EQ(job["totalSteps"], "3") << "64-bit integers are texts, as in all JSON of protobuf";
  EXPECT_EQ(job["spec"]["lora"]["rank"], 8);
}

TEST_F(WebServerTest, ErrorsHaveConnectsCodesAndDetails) {
  const auto gone = Post("/tundra.v1.JobService/GetJob", R"({"name": "jobs/none"})");
  EXPECT_EQ(gone->status, 404);
  EXPECT_EQ(Body(gone)["code"], "not_found");
  const auto bad = Post("/tundra.v1.JobService/CreateJob", R"({"job": {}})");
  EXPECT_EQ(bad->status, 400);
  const json error = Body(bad);
  EXPECT_EQ(error["code"], "invalid_argument");
  ASSERT_EQ(error["details"].size(), 1);
  EXPECT_EQ(error["details"][0]["type"], "google.rpc.BadRequest");
  EXPECT_FALSE(error["details"][0]["value"].get<std::string>().empty());
  std::vector<std::string> fields;
  for (const json& v : error["details"][0]["debug"]["fieldViolations"])
    fields.push_back(v["field"]);
  EXPECT_THAT(fields, Contains("job.spec.base"));
}

TEST_F(WebServerTest, MethodsThatItDoesNotServeSaySo) {
  const auto streaming = Post("/tundra.v1.JobService/WatchJob", "{}");
  EXPECT_EQ(streaming->status, 501);
  EXPECT_EQ(Body(streaming)["code"], "unimplemented");
  EXPECT_THAT(streaming->body, HasSubstr("gRPC"));
  for (const char* const path :
       {"/tundra.v1.JobService/Nothing", "/tundra.v1.NoService/ListJobs", "/tundra.v1.JobService/",
        "/tundra.v1.WorkerService/GetBlobUpload", "/grpc.health.v1.Health/Check",
        "/tundra.v1.JobService/ListJobs/x", "/"}) {
    const auto result = Post(path, "{}");
    ASSERT_TRUE(result) << path;
    EXPECT_EQ(result->status, std::string(path) == "/" ? 405 : 404) << path;
    EXPECT_TRUE(Body(result).contains("code")) << path;
  }
  EXPECT_EQ(client_->Get(kListJobs)->status, 405);
  EXPECT_EQ(client_->Get(kListJobs)->get_header_value("Allow"), "POST");
  EXPECT_EQ(client_->Options(kListJobs)->status, 405) << "no other site gets leave by a preflight";
  EXPECT_EQ(client_->Delete(kListJobs)->status, 405);
  EXPECT_EQ(client_->Get("/nothing")->status, 404);
  EXPECT_EQ(client_->Get("/" + std::string(2000, 'x'))->status, 404);
}

TEST_F(WebServerTest, BadBodiesAreRefusedBeforeAnyCall) {
  for (const char* const body : {"", "{", "[]", "null", "{\"pageSize\": \"x\"}", "{\"x\": 1}",
                                 "{\"pageToken\": \"\xff\"}", "{\"pageSize\": 1e30}"}) {
    const auto result = Post(kListJobs, body);
    ASSERT_TRUE(result) << body;
    EXPECT_EQ(result->status, 400) << body;
    EXPECT_EQ(Body(result)["code"], "invalid_argument") << body;
  }
  EXPECT_EQ(Post(kListJobs, std::string(100'000, '['))->status, 400) << "depth is bounded";
  for (const char* const type : {"text/plain", "application/x-www-form-urlencoded",
                                 "multipart/form-data; boundary=x", "application/proto"}) {
    const auto result = client_->Post(kListJobs, "{}", type);
    ASSERT_TRUE(result) << type;
    EXPECT_EQ(result->status, 415) << type << ": a form of another site can send it";
  }
  EXPECT_EQ(client_->Post(kListJobs, "{}", "application/json; charset=utf-8")->status, 200);
  EXPECT_EQ(Post(kListJobs, "{}", {{"Content-Encoding", "gzip"}})->status, 415);
  EXPECT_EQ(Post(kListJobs, "{}", {{"Connect-Protocol-Version", "2"}})->status, 400);
  EXPECT_EQ(Post(kListJobs, "{}", {{"Connect-Timeout-Ms", "soon"}})->status, 400);
  EXPECT_EQ(Post(kListJobs, "{}", {{"Connect-Timeout-Ms", "0"}})->status, 504);
  EXPECT_EQ(Post(kListJobs, "{}", {{"Connect-Timeout-Ms", "20000"}})->status, 200);
}

TEST_F(WebServerTest, ACallThatTakesTooLongIsGivenUp) {
  const auto worker = NewWorker("w", 1);
  const json request = {{"name", Upload("ENDLESS\n")}, {"base", "tiny"}};
  const auto result = Post("/tundra.v1.DatasetService/ValidateDataset", request.dump(),
                           {{"Connect-Timeout-Ms", "300"}});
  ASSERT_TRUE(result);
  EXPECT_EQ(result->status, 504);
  EXPECT_EQ(Body(result)["code"], "deadline_exceeded");
}

TEST_F(WebServerTest, LargeRequestsAreRefusedUnread) {
  EXPECT_EQ(Post(kListJobs, std::string((4 << 20) + 1, ' '))->status, 413);
  EXPECT_EQ(Post(kListJobs, "{}" + std::string((4 << 20) - 2, ' '))->status, 200);
  const int port = coordinator_->web_port();
  RawClient promises(port);
  promises.Send(absl::StrCat("POST ", kListJobs,
                             " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                             "Content-Length: 99999999999\r\n\r\n{"));
  EXPECT_THAT(promises.ReadToEnd(), HasSubstr(" 413 "));
  RawClient chunks(port);
  chunks.Send(absl::StrCat("POST ", kListJobs,
                           " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                           "Transfer-Encoding: chunked\r\n\r\nfffffff\r\n"));
  EXPECT_THAT(chunks.ReadToEnd(), HasSubstr(" 411 "));
  RawClient line(port);
  std::string endless = "GET /";
  while (line.Send(endless) && endless.size() < (16 << 20)) endless = std::string(64 << 10, 'x');
  EXPECT_THAT(line.ReadToEnd(), Not(HasSubstr(" 200 ")));
  RawClient headers(port);
  headers.Send("GET / HTTP/1.1\r\nHost: localhost\r\n");
  for (int i = 0; i < 4000 && headers.Send(absl::StrCat("X-", i, ": y\r\n")); ++i) {
  }
  headers.Send("\r\n");
  EXPECT_THAT(headers.ReadToEnd(), Not(HasSubstr(" 200 ")));
}

TEST_F(WebServerTest, EveryAnswerKeepsOtherSitesOut) {
  RawClient broken(coordinator_->web_port());
  broken.Send("NONSENSE\r\n\r\n");
  const std::string answer = broken.ReadToEnd();
  const auto check = [](const std::string& text, const std::string& what) {
    for (const char* const header :
         {"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
          "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
          "nosniff", "no-referrer"}) {
      EXPECT_THAT(text, HasSubstr(header)) << what;
    }
    EXPECT_THAT(text, Not(HasSubstr("Access-Control"))) << what;
    EXPECT_THAT(text, Not(HasSubstr("Set-Cookie"))) << what;
  };
  check(answer, "a malformed request");
  const auto text_of = [](const httplib::Result& result) {
    std::string text;
    for (const auto& [name, value] : result->headers)
      absl::StrAppend(&text, name, ": ", value, "\n");
    return text;
  };
  check(text_of(client_->Get("/")), "the page");
  check(text_of(client_->Get("/x")), "nothing");
  check(text_of(Post(kListJobs, "{}", {{"Origin", "https://elsewhere.example"}})), "a call");
  check(text_of(Post(kListJobs, "{")), "an error");
  check(text_of(client_->Get("/v1/jobs/x/adapter/files/y")), "a download");
}

TEST_F(WebServerTest, OnLoopbackOnlyItsOwnNamesAreServed) {
  for (const char* const host :
       {"localhost", "localhost:7702", "127.0.0.1:1", "[::1]:7702", "[::1]", "127.9.9.9"}) {
    EXPECT_EQ(client_->Get("/", httplib::Headers{{"Host", host}})->status, 200) << host;
  }
  for (const char* const host : {"evil.example", "evil.example:7702", "localhost.evil.example",
                                 "127.0.0.1.evil.example", "10.0.0.1"}) {
    EXPECT_EQ(client_->Get("/", httplib::Headers{{"Host", host}})->status, 421) << host;
    EXPECT_EQ(Post(kListJobs, "{}", {{"Host", host}})->status, 421) << host;
  }
}

TEST_F(WebServerTest, WhatHasNotChangedIsNotSentAgain) {
  const auto first = Post(kListJobs, "{}");
  const std::string etag = first->get_header_value("ETag");
  ASSERT_FALSE(etag.empty());
  const auto again = Post(kListJobs, "{}", {{"If-None-Match", etag}});
  EXPECT_EQ(again->status, 304);
  EXPECT_EQ(again->body, "");
  EXPECT_EQ(again->get_header_value("ETag"), etag);
  EXPECT_EQ(Post(kListJobs, "{}", {{"If-None-Match", "\"x\", " + etag}})->status, 304);
  const auto worker = NewWorker("w", 1);
  Create(JobRequest(3));
  const auto changed = Post(kListJobs, "{}", {{"If-None-Match", etag}});
  EXPECT_EQ(changed->status, 200);
  EXPECT_NE(changed->get_header_value("ETag"), etag);
  // Something that changes a job is always done, and has no tag.
  const std::string name = json{{"name", Body(changed)["jobs"][0]["name"]}}.dump();
  const auto paused = Post("/tundra.v1.JobService/PauseJob", name, {{"If-None-Match", "*"}});
  EXPECT_EQ(paused->status, 200);
  EXPECT_FALSE(paused->has_header("ETag"));
}

TEST_F(WebServerTest, ServesThePageWithFilesThatNeverChange) {
  const auto page = client_->Get("/");
  ASSERT_EQ(page->status, 200);
  EXPECT_EQ(page->get_header_value("Cache-Control"), "no-cache");
  EXPECT_EQ(client_->Get("/", httplib::Headers{{"If-None-Match", page->get_header_value("ETag")}})
                ->status,
            304);
  EXPECT_THAT(page->body, Not(HasSubstr("@HASH@")));
  size_t named = 0;
  for (const PageFile& file : PageFiles()) {
    const auto got = client_->Get(std::string(file.path));
    ASSERT_TRUE(got) << file.path;
    EXPECT_EQ(got->status, 200) << file.path;
    EXPECT_EQ(got->body, file.bytes) << file.path;
    EXPECT_EQ(got->get_header_value("Content-Type"), file.content_type);
    if (file.path == "/") continue;
    EXPECT_THAT(got->get_header_value("Cache-Control"), HasSubstr("immutable")) << file.path;
    named += absl::StrContains(page->body, std::string(file.path)) ? 1 : 0;
  }
  EXPECT_GE(named, 5) << "the page names its files by their hash";
  // A name without a hash may have other bytes tomorrow.
  const auto icon = client_->Get("/favicon.ico");
  ASSERT_EQ(icon->status, 200);
  EXPECT_EQ(icon->get_header_value("Cache-Control"), "no-cache");
  const auto head = client_->Head("/");
  EXPECT_EQ(head->status, 200);
  EXPECT_EQ(head->body, "");
}

TEST_F(WebServerTest, ManyRangesMakeNoLargeAnswer) {
  std::string ranges = "bytes=0-";
  for (int i = 0; i < 1000; ++i) ranges += ",0-";
  const auto result = client_->Get("/", httplib::Headers{{"Range", ranges}});
  ASSERT_TRUE(result);
  EXPECT_LE(result->body.size(), client_->Get("/")->body.size());
}

TEST_F(WebServerTest, DownloadsAFileWholeAndRefusesOthers) {
  const auto worker = NewWorker("w", 1);
  const std::string name = Create(JobRequest(2)).name();
  ASSERT_TRUE(worker->JoinGroup(1));
  Finish(*worker, 1, 2);
  ASSERT_TRUE(WaitForState(name, v1::SUCCEEDED));
  const v1::Adapter adapter = Get(name).adapter();
  ASSERT_GT(adapter.files_size(), 0);
  for (const v1::AdapterFile& file : adapter.files()) {
    const auto got = client_->Get("/v1/" + adapter.name() + "/files/" + file.filename());
    ASSERT_EQ(got->status, 200);
    EXPECT_EQ(Sha256Hex(got->body), file.sha256());
    EXPECT_EQ(got->get_header_value("Content-Disposition"), "attachment");
    EXPECT_EQ(got->get_header_value("Content-Type"), "application/octet-stream");
  }
  EXPECT_EQ(client_->Get("/v1/" + name + "/adapter/files/none")->status, 404);
  EXPECT_EQ(client_->Get("/v1/jobs/none/adapter/files/adapter_config.json")->status, 404);
  EXPECT_EQ(client_->Get("/v1/" + name + "/adapter/files/..%2f..%2fetc%2fpasswd")->status, 404);
  EXPECT_EQ(client_->Get("/v1/" + name + "/adapter/files/")->status, 404);
  EXPECT_EQ(client_->Get("/v1/" + name + "/x/files/y")->status, 400);
}

TEST_F(WebServerTest, WhoMayNotCallMakesNobodyReadABody) {
  WebOptions options;
  std::atomic<int> asked{0};
  options.authorize = [&](const WebCaller& caller, std::string_view method) {
    ++asked;
    EXPECT_EQ(method, "CreateJob");
    return caller.authorization == "Bearer good" ? absl::OkStatus()
                                                 : absl::UnauthenticatedError("who are you?");
  };
  const auto server = Serve(std::move(options));
  // The head of a request alone: the answer comes although its body does not.
  RawClient stranger(server->port());
  ASSERT_TRUE(
      stranger.Send("POST /tundra.v1.JobService/CreateJob HTTP/1.1\r\nHost: localhost\r\n"
                    "Content-Type: application/json\r\nContent-Length: 4000000\r\n\r\n"));
  EXPECT_THAT(stranger.ReadToEnd(), HasSubstr("401"));
  EXPECT_EQ(asked, 1);
  httplib::Client client("127.0.0.1", server->port());
  const auto result = client.Post("/tundra.v1.JobService/CreateJob",
                                  {{"Authorization", "Bearer good"}}, "{", "application/json");
  ASSERT_TRUE(result);
  EXPECT_EQ(result->status, 400) << "of the body";
}

TEST_F(WebServerTest, LargeCallsAreFewAtATimeAndAllAreAnswered) {
  std::vector<std::thread> clients;
  std::atomic<int> answered{0};
  const std::string body = json{{"name", std::string(1 << 20, 'x')}}.dump();
  for (int i = 0; i < 3 * JsonApi::kMostLarge; ++i) {
    clients.emplace_back([&] {
      httplib::Client client("127.0.0.1", coordinator_->web_port());
      client.set_read_timeout(60);
      const auto result = client.Post("/tundra.v1.JobService/GetJob", body, "application/json");
      if (result && result->status == 400) ++answered;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(answered, 3 * JsonApi::kMostLarge);
}

TEST_F(WebServerTest, SlowClientsNeitherHoldThreadsNorStarveOthers) {
  WebOptions options;
  options.threads = 3;
  options.limits.request = absl::Milliseconds(600);
  options.limits.idle = absl::Seconds(30);
  const auto server = Serve(std::move(options));
  std::vector<std::unique_ptr<RawClient>> slow;
  for (int i = 0; i < 12; ++i) {
    slow.push_back(std::make_unique<RawClient>(server->port()));
    // Some have begun a request, others say nothing at all.
    if (i % 2 == 0) slow.back()->Send("POST /tundra.v1.JobService/ListJobs HTTP/1.1\r\nHost: lo");
  }
  httplib::Client client("127.0.0.1", server->port());
  client.set_read_timeout(60);
  const auto result = client.Get("/");
  ASSERT_TRUE(result) << "served although every thread was held";
  EXPECT_EQ(result->status, 200);
  // A byte now and then does not lengthen the time for a request.
  RawClient drips(server->port());
  const absl::Time start = absl::Now();
  bool open = true;
  for (int i = 0; open && absl::Now() - start < absl::Seconds(30); ++i) {
    open = drips.Send(i == 0 ? "GET / HTTP/1.1\r\n" : "x");
    absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_FALSE(open) << "the connection was closed in the middle of its request";
}

TEST_F(WebServerTest, ABodyThatBreaksOffIsAnError) {
  WebOptions options;
  options.limits.request = absl::Milliseconds(300);
  const auto server = Serve(std::move(options));
  RawClient client(server->port());
  client.Send(absl::StrCat("POST ", kListJobs,
                           " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                           "Content-Length: 10\r\n\r\n{"));
  const std::string answer = client.ReadToEnd();
  EXPECT_THAT(answer, HasSubstr(" 400 "));
  EXPECT_THAT(answer, HasSubstr("invalid_argument"));
}

TEST_F(WebServerTest, AConnectionServesManyRequests) {
  RawClient client(coordinator_->web_port());
  std::string requests;
  for (int i = 0; i < 3; ++i) {
    requests += absl::StrCat("POST ", kListJobs,
                             " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                             "Content-Length: 2\r\n",
                             i == 2 ? "Connection: close\r\n" : "", "\r\n{}");
  }
  client.Send(requests);
  const std::string answers = client.ReadToEnd();
  size_t count = 0;
  for (size_t at = 0; (at = answers.find("HTTP/1.1 200", at)) != std::string::npos; ++at) ++count;
  EXPECT_EQ(count, 3);
}

TEST_F(WebServerTest, ABodyOfDoubtfulLengthIsNeverTakenForAnotherRequest) {
  const std::string hidden = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
  for (const char* const headers :
       {"Transfer-Encoding: chunked\r\n", "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 2\r\nContent-Length: 50\r\n", "Content-Length: two\r\n",
        "Content-Length: -1\r\n"}) {
    for (const std::string& start : {absl::StrCat("POST ", kListJobs), std::string("GET /x")}) {
      RawClient client(coordinator_->web_port());
      client.Send(absl::StrCat(start,
                               " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n",
                               headers, "\r\n{}", hidden));
      const std::string answers = client.ReadToEnd();
      EXPECT_THAT(answers, Not(HasSubstr("HTTP/1.1 200"))) << start << "\n" << headers;
      EXPECT_EQ(answers.find("HTTP/1.1", 1), std::string::npos) << start << "\n" << headers;
    }
  }
}

TEST_F(WebServerTest, ManyClientsAtOnceAreAllServed) {
  WebOptions options;
  options.threads = 4;
  const auto server = Serve(std::move(options));
  std::atomic<int> served = 0;
  std::vector<std::thread> clients;
  for (int c = 0; c < 24; ++c) {
    clients.emplace_back([&] {
      httplib::Client client("127.0.0.1", server->port());
      client.set_read_timeout(60);
      client.set_keep_alive(true);
      for (int i = 0; i < 10; ++i) {
        auto result = client.Post(kListJobs, "{}", "application/json");
        // A connection that idled may give way just as it is used again: browsers then open
        // another, and so does this.
        for (int n = 0; !result && n < 5; ++n) {
          result = client.Post(kListJobs, "{}", "application/json");
        }
        served += result && result->status == 200 ? 1 : 0;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(served, 240);
}

TEST_F(WebServerTest, StopsWhileClientsAreConnected) {
  WebOptions options;
  auto server = Serve(std::move(options));
  RawClient idle(server->port());
  RawClient half(server->port());
  half.Send("GET / HT");
  const absl::Time start = absl::Now();
  server->Stop();
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
}

// A certificate for localhost, signed by itself.
std::shared_ptr<SSL_CTX> NewTlsContext() {
  EVP_PKEY* const key = EVP_EC_gen("P-256");
  X509* const certificate = X509_new();
  X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_set_pubkey(certificate, key);
  X509_sign(certificate, key, EVP_sha256());
  std::shared_ptr<SSL_CTX> context(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  EXPECT_EQ(SSL_CTX_use_certificate(context.get(), certificate), 1);
  EXPECT_EQ(SSL_CTX_use_PrivateKey(context.get(), key), 1);
  X509_free(certificate);
  EVP_PKEY_free(key);
  return context;
}

TEST_F(WebServerTest, ServesOverTlsAndRefusesWhatIsNone) {
  const std::shared_ptr<SSL_CTX> context = NewTlsContext();
  WebOptions options;
  options.tls = [context] { return context; };
  options.limits.request = absl::Milliseconds(500);
  const auto server = Serve(std::move(options));
  httplib::SSLClient client("127.0.0.1", server->port());
  client.enable_server_certificate_verification(false);
  client.set_keep_alive(true);
  for (int i = 0; i < 3; ++i) {
    const auto page = client.Get("/");
    ASSERT_TRUE(page);
    EXPECT_EQ(page->status, 200);
    EXPECT_EQ(page->body, client_->Get("/")->body);
    EXPECT_EQ(client.Post(kListJobs, "{}", "application/json")->status, 200);
  }
  RawClient plain(server->port());
  plain.Send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_THAT(plain.ReadToEnd(), Not(HasSubstr("200")));
  RawClient silent(server->port());
  EXPECT_THAT(silent.ReadToEnd(), Not(HasSubstr("200"))) << "a handshake has its time";
}

}  // namespace
}  // namespace tundra::coordinator
