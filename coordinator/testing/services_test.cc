// Health and reflection, spoken as bytes: what grpcurl and probes rely on.
#include <grpcpp/generic/generic_stub.h>

#include "coordinator/testing/harness.h"

namespace tundra::coordinator {
namespace {

using ServicesTest = CoordinatorHarness;

grpc::ByteBuffer Bytes(const std::string& text) {
  const grpc::Slice slice(text);
  return grpc::ByteBuffer(&slice, 1);
}

std::string Text(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string text;
  if (!buffer.Dump(&slices).ok()) return text;
  for (const grpc::Slice& slice : slices) {
    text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return text;
}

// Waits for the next operation of the queue to end.
bool Next(grpc::CompletionQueue& queue) {
  void* tag = nullptr;
  bool ok = false;
  return queue.Next(&tag, &ok) && ok;
}

TEST_F(ServicesTest, SaysThatItServes) {
  grpc::GenericStub stub(channel_);
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  const auto call =
      stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", Bytes(""), &queue);
  call->StartCall();
  grpc::ByteBuffer response;
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  ASSERT_TRUE(Next(queue));
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(Text(response), std::string("\x08\x01")) << "status = SERVING";
}

TEST_F(ServicesTest, ListsItsServicesByReflection) {
  grpc::GenericStub stub(channel_);
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  const auto call = stub.PrepareCall(
      &context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  call->StartCall(nullptr);
  ASSERT_TRUE(Next(queue));
  call->Write(Bytes(std::string("\x3a\x00", 2)), nullptr);  // list_services: ""
  ASSERT_TRUE(Next(queue));
  grpc::ByteBuffer response;
  call->Read(&response, nullptr);
  ASSERT_TRUE(Next(queue));
  const std::string text = Text(response);
  for (const char* const service :
       {"tundra.v1.JobService", "tundra.v1.DatasetService", "tundra.v1.BaseService",
        "tundra.v1.ArtifactService", "tundra.v1.GenerateService", "tundra.v1.FleetService",
        "tundra.v1.WorkerService"}) {
    EXPECT_THAT(text, ::testing::HasSubstr(service));
  }
  context.TryCancel();
  grpc::Status status;
  call->Finish(&status, nullptr);
  Next(queue);
}

}  // namespace
}  // namespace tundra::coordinator
