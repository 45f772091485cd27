// A library with the CUDA backend's entry point, of another build.
extern "C" const void* tundra_cuda_backend(const char* /*interface*/,
                                           const char** library_interface) {
  *library_interface = "0123456789abcdef";
  return nullptr;
}
