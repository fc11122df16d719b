// The device that an entry of _cuda works on, memory that lies there, and what went wrong as
// sentences.
#pragma once

#include <cuda_runtime.h>

#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings_memory.h"

namespace pydenoise {

// "75;80;...": the architectures that setup.py compiled for; the last one's code is there as PTX
// too, from which a driver makes code for later devices.
#if !defined(PYDENOISE_CUDA_ARCHITECTURES)
#define PYDENOISE_CUDA_ARCHITECTURES ""
#endif

inline std::vector<std::string> built_architectures() {
  std::vector<std::string> found;
  std::istringstream names(PYDENOISE_CUDA_ARCHITECTURES);
  for (std::string name; std::getline(names, name, ';');) found.push_back(name);
  return found;
}

inline std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// Why no kernel can run here, or nothing.
inline std::string why_unavailable() {
  int driver = 0, runtime = 0, count = 0;
  cudaRuntimeGetVersion(&runtime);
  cudaDriverGetVersion(&driver);
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count > 0) return {};
  cudaGetLastError();  // or the next launch would report it again
  if (status == cudaErrorInsufficientDriver && driver == 0) {
    return "no NVIDIA driver was found on this machine";
  }
  if (status == cudaErrorInsufficientDriver) {
    return "the NVIDIA driver knows CUDA " + version_text(driver) + ", these kernels need " +
           version_text(runtime) + "; a newer driver does";
  }
  if (status == cudaErrorNoDevice || status == cudaSuccess) {
    return "the NVIDIA driver finds no GPU (is CUDA_VISIBLE_DEVICES empty?)";
  }
  return std::string(cudaGetErrorName(status)) + ": " + cudaGetErrorString(status);
}

inline std::string what_to_do(cudaError_t status) {
  switch (status) {
    case cudaErrorNoKernelImageForDevice:
      return "; the kernels were built for the architectures " PYDENOISE_CUDA_ARCHITECTURES
             ": build again with PYDENOISE_CUDA_ARCHITECTURES=native";
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
      return "; the device's state is lost: start the process again";
    case cudaErrorMemoryAllocation:
      return "; take smaller pictures or fewer at a time";
    default:
      return {};
  }
}

[[noreturn]] inline void fail(const char* name, cudaError_t status) {
  cudaGetLastError();
  const std::string why = why_unavailable();
  if (!why.empty()) throw std::runtime_error(std::string(name) + ": " + why);
  throw std::runtime_error(std::string(name) + ": " + cudaGetErrorName(status) + ": " +
                           cudaGetErrorString(status) + what_to_do(status));
}

// Makes a device this thread's until the end of the block.
class DeviceGuard {
 public:
  DeviceGuard(const char* name, int device) {
    cudaError_t status = cudaGetDevice(&before_);
    if (status == cudaSuccess && device != before_) status = cudaSetDevice(device);
    if (status != cudaSuccess) fail(name, status);
    changed_ = device != before_;
  }
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(before_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

// A kernel that meets another address than one of its device takes the whole process's device
// down, so each is looked up first, which the runtime answers from a table.
inline void check_on_device(const void* address, int device, const char* name) {
  cudaPointerAttributes found;
  const cudaError_t status = cudaPointerGetAttributes(&found, address);
  if (status != cudaSuccess) fail(name, status);
  if (found.type == cudaMemoryTypeManaged) return;
  if (found.type != cudaMemoryTypeDevice || found.device != device) {
    throw std::invalid_argument(std::string(name) + ": not memory of CUDA device " +
                                std::to_string(device));
  }
}

// Where a call runs.
struct Queue {
  int device;
  cudaStream_t stream;

  Queue(int of_device, uintptr_t of_stream)
      : device(of_device), stream(reinterpret_cast<cudaStream_t>(of_stream)) {}

  template <class T>
  T* take(const Memory& memory, int64_t count, const char* name, bool optional = false) const {
    T* const data = elements<T>(memory, count, name, optional);
    if (data != nullptr && count > 0) check_on_device(data, device, name);
    return data;
  }
  // Scratch memory of at least `count` elements.
  template <class T>
  T* scratch(const Memory& memory, int64_t count) const {
    const int64_t size = product({count, static_cast<int64_t>(sizeof(T))});
    if (memory.bytes < size) {
      throw std::invalid_argument("workspace: " + std::to_string(memory.bytes) +
                                  " bytes came, at least " + std::to_string(size) + " are needed");
    }
    return take<T>({memory.address, size, memory.reach, memory.owner}, count, "workspace");
  }
};

// Calls body(T()) without Python's lock on the queue's device, T = float or double.
template <class Body>
void run(const char* name, bool is_double, const Queue& queue, const Body& body) {
  pybind11::gil_scoped_release unlocked;
  const DeviceGuard guard(name, queue.device);
  const cudaError_t status = is_double ? body(double()) : body(float());
  if (status != cudaSuccess) fail(name, status);
}

}  // namespace pydenoise
