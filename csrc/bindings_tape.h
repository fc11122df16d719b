// A tape: the calls that a thread made of this module's kernels, to be made again in one go.
//
// Arguments are kept as they came, memory as the object that owned it. Some objects are replaced
// at each replay (the pictures), some may have moved since (the parameters: then nothing is run),
// all others belong to the tape for as long as it lives, so their addresses are asked for once.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "bindings_memory.h"

namespace pydenoise {

class Tape {
 public:
  Tape(const pybind11::args& pictures, const pybind11::iterable& watched) {
    for (const pybind11::handle picture : pictures) slot_of(picture.cast<Memory>());
    pictures_ = owners_.size();
    for (const pybind11::handle tensor : watched) slot_of(tensor.cast<Memory>());
    watched_ = owners_.size();
  }

  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;
  ~Tape() { leave(); }

  void start() {
    if (recorder_.tape != nullptr || recorder_of_ != nullptr || !calls_.empty())
      throw std::logic_error("a tape records once");
    recorder_.tape = this;
    recorder_of_ = &recorder_;
  }
  void stop() {
    leave();
    for (size_t i = 0; i < pictures_; ++i) owners_[i] = pybind11::none();
  }

  // What the calls used beside pictures and watched tensors; none where a call cannot be repeated.
  pybind11::object others() const {
    if (is_spoilt_) return pybind11::none();
    pybind11::list list;
    for (size_t i = watched_; i < owners_.size(); ++i) list.append(owners_[i]);
    return list;
  }

  // The calls once more, on other pictures of the same sizes; what they return that is a number.
  // None, with nothing run, where a watched tensor has moved or shares memory with a picture.
  pybind11::object replay(const pybind11::args& pictures) {
    if (pictures.size() != pictures_)
      throw std::invalid_argument("replay: other pictures expected");
    if (recorder_of_ != nullptr || is_playing_)
      throw std::logic_error("replay: the tape is at work already");
    is_playing_ = true;
    struct AtEnd {
      bool& is_playing;
      ~AtEnd() { is_playing = false; }
    } at_end{is_playing_};
    for (size_t i = 0; i < pictures_; ++i) memory_[i] = pictures[i].cast<Memory>();
    for (size_t i = pictures_; i < watched_; ++i) {
      const auto now = pybind11::handle(owners_[i]).cast<Memory>();
      if (now.address != memory_[i].address || now.bytes != memory_[i].bytes ||
          now.bytes > now.reach)
        return pybind11::none();
      for (size_t j = 0; j < pictures_; ++j) {
        if (overlap(now, memory_[j])) return pybind11::none();
      }
    }
    pybind11::list numbers;
    for (const Call& call : calls_) call(memory_, numbers);
    return numbers;
  }

  // Notes a call of `entry` on the tape that this thread records, if it does.
  template <class Result, class... Args>
  static void note(Result (*entry)(Args...), const std::decay_t<Args>&... args) {
    Tape* const tape = recorder_.tape;
    if (tape == nullptr) return;
    auto kept = std::make_tuple(tape->keep(args)...);
    tape->calls_.push_back(
        [entry, kept](const std::vector<Memory>& memory, pybind11::list& numbers) {
          std::apply(
              [&](const auto&... each) {
                if constexpr (std::is_void_v<Result>) {
                  entry(now(each, memory)...);
                } else {
                  numbers.append(entry(now(each, memory)...));
                }
              },
              kept);
        });
  }

  // For a call whose memory the tape cannot know.
  static void spoil() {
    if (recorder_.tape != nullptr) recorder_.tape->is_spoilt_ = true;
  }

 private:
  using Call = std::function<void(const std::vector<Memory>&, pybind11::list&)>;
  struct Slot {
    size_t index;
  };
  // A thread's tape; either end of the bond undoes it, under one lock.
  struct Recorder {
    Tape* tape = nullptr;
    ~Recorder() {
      const std::lock_guard<std::mutex> locked(bonds_);
      if (tape != nullptr) tape->recorder_of_ = nullptr;
    }
  };

  void leave() {
    const std::lock_guard<std::mutex> locked(bonds_);
    if (recorder_of_ != nullptr) recorder_of_->tape = nullptr;
    recorder_of_ = nullptr;
  }

  template <class T>
  T keep(const T& value) {
    return value;
  }
  Slot keep(const Memory& memory) { return {slot_of(memory)}; }

  template <class T>
  static const T& now(const T& value, const std::vector<Memory>&) {
    return value;
  }
  static Memory now(const Slot& slot, const std::vector<Memory>& memory) {
    return memory[slot.index];
  }

  size_t slot_of(const Memory& memory) {
    const pybind11::handle owner = memory.owner != nullptr ? memory.owner : Py_None;
    for (size_t i = 0; i < owners_.size(); ++i) {
      if (owners_[i].is(owner)) return i;
    }
    owners_.push_back(pybind11::reinterpret_borrow<pybind11::object>(owner));
    memory_.push_back(memory);
    return owners_.size() - 1;
  }

  static bool overlap(const Memory& a, const Memory& b) {
    return a.address < b.address + static_cast<uintptr_t>(b.bytes) &&
           b.address < a.address + static_cast<uintptr_t>(a.bytes);
  }

  inline static std::mutex bonds_;
  static thread_local Recorder recorder_;
  Recorder* recorder_of_ = nullptr;
  std::vector<pybind11::object> owners_;
  std::vector<Memory> memory_;  // of each owner
  std::vector<Call> calls_;
  size_t pictures_ = 0, watched_ = 0;  // owners before these are pictures, pictures or watched
  bool is_spoilt_ = false, is_playing_ = false;
};

inline thread_local Tape::Recorder Tape::recorder_;

// Defines an entry of the module that a tape can record.
template <class Result, class... Args>
void def_recorded(pybind11::module_& m, const char* name, Result (*entry)(Args...)) {
  m.def(name, [entry](Args... args) {
    Tape::note(entry, args...);
    return entry(args...);
  });
}

}  // namespace pydenoise
