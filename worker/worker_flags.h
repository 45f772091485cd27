// The command line and configuration file of tundra-worker.
#pragma once

#include <string>
#include <vector>

namespace tundra::worker {

struct WorkerFlags {
  std::string coordinator = "127.0.0.1:7700";
  std::string name;
  std::string data_dir;
  std::vector<std::string> base_dirs;
  std::string devices = "cpu:1";
  int threads = 0;
  std::string cpu_max_isa;
  std::string collective_host = "127.0.0.1";
  double collective_timeout_s = 300;
  double hang_timeout_s = 1800;
  double drain_timeout_s = 30;
  std::string gather = "auto";
  std::string collective = "auto";
  std::string http = "127.0.0.1:0";
  std::string ports_file;
  std::string log_level = "info";
  bool log_json = false;
  std::string token_file;
  std::string tls_ca;
  std::string tls_cert;
  std::string tls_key;
  bool tls = false;
  bool insecure = false;
};

}  // namespace tundra::worker
