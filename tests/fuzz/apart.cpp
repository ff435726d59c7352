#include "tests/fuzz/apart.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

namespace fuzz {

namespace {

using json = nlohmann::json;

constexpr unsigned kSeconds = 60;

std::string printed(const Checked& c) {
  return json{{"difference", c.difference}, {"unusable", c.unusable}, {"raises_everywhere", c.raises_everywhere},
              {"another_exception", c.another_exception}, {"executor_decides", c.executor_decides}, {"missed", c.missed}, {"graph", c.graph},
              {"report", c.report ? c.report->to_json() : ""}}
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

Checked parsed(const std::string& text) {
  const json found = json::parse(text);
  Checked c;
  found.at("difference").get_to(c.difference);
  found.at("unusable").get_to(c.unusable);
  found.at("raises_everywhere").get_to(c.raises_everywhere);
  found.at("another_exception").get_to(c.another_exception);
  found.at("executor_decides").get_to(c.executor_decides);
  found.at("missed").get_to(c.missed);
  found.at("graph").get_to(c.graph);
  if (const auto report = found.at("report").get<std::string>(); !report.empty()) c.report = fusible::Report::from_json(report);
  return c;
}

void write_all(int to, const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t n = write(to, text.data() + done, text.size() - done);
    if (n < 0) return;
    done += static_cast<std::size_t>(n);
  }
}

// The process that checks, and the answers that it writes, one line each.
class Checking {
 public:
  explicit Checking(const std::function<void(int)>& work) {
    int pipes[2];
    if (pipe(pipes) != 0) throw std::runtime_error("cannot make a pipe to the checking process");
    child_ = fork();
    if (child_ < 0) throw std::runtime_error("cannot start the checking process");
    if (child_ == 0) {
      close(pipes[0]);
      work(pipes[1]);
      _exit(0);
    }
    close(pipes[1]);
    answers_ = fdopen(pipes[0], "r");
  }
  ~Checking() {
    if (child_ > 0) kill(child_, SIGKILL), end();
    fclose(answers_);
  }
  Checking(const Checking&) = delete;

  Checked next() {
    char* line = nullptr;
    std::size_t room = 0;
    const ssize_t length = getline(&line, &room, answers_);
    const std::string text(line, length > 0 ? static_cast<std::size_t>(length) : 0);
    std::free(line);
    return json::accept(text) ? parsed(text) : crashed();
  }

 private:
  int end() {
    int status = 0;
    waitpid(child_, &status, 0);
    child_ = 0;
    return status;
  }

  Checked crashed() {
    const int status = end();
    Checked ended;
    ended.crashed = true;
    ended.difference = !WIFSIGNALED(status)           ? "the process ends with " + std::to_string(WEXITSTATUS(status))
                       : WTERMSIG(status) == SIGALRM ? "no answer after " + std::to_string(kSeconds) + " seconds"
                                                     : std::string("the process ends: ") + strsignal(WTERMSIG(status));
    return ended;
  }

  pid_t child_ = 0;
  FILE* answers_ = nullptr;
};

}  // namespace

void check_apart(std::int64_t count, const std::function<Program(std::int64_t)>& program, Target target,
                 const std::function<bool(std::int64_t, const Checked&)>& take) {
  for (std::int64_t next = 0; next < count;) {
    Checking checking([&](int to) {
      for (std::int64_t i = next; i < count; ++i) {
        alarm(kSeconds);
        write_all(to, printed(check(program(i), target)) + "\n");
      }
    });
    for (bool alive = true; alive && next < count; ++next) {
      const Checked checked = checking.next();
      if (!take(next, checked)) return;
      alive = !checked.crashed;
    }
  }
}

Checked check_apart(const Program& program, Target target) {
  Checked only;
  check_apart(1, [&](std::int64_t) { return program; }, target, [&](std::int64_t, const Checked& checked) {
    only = checked;
    return true;
  });
  return only;
}

}  // namespace fuzz
