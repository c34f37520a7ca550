#include "src/transport/http_reader.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/basic_parser.hpp>

namespace sallyport::transport {
namespace {

namespace beast = boost::beast;
namespace upnp_http = upnp::http;
using boost::system::error_code;
using upnp_http::Request;
using upnp_http::same_name;

/// Longer ones are no method of anything; noise is told from a slow client here.
constexpr std::size_t max_method = 32;
constexpr std::size_t max_chunk_digits = 8;
/// Buffers above it are not kept for the next request.
constexpr std::size_t kept_capacity = 4096;

bool is_token_char(char c) noexcept {
  if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) return true;
  return c != '\0' && std::strchr("!#$%&'*+-.^_`|~", c) != nullptr;
}

/// Printable, blank, tab or beyond ASCII: what a field value may hold (RFC 9110, section 5.5).
bool is_text_char(char c) noexcept {
  const auto octet = static_cast<unsigned char>(c);
  return octet == '\t' || (octet >= 0x20 && octet != 0x7f);
}

bool is_target_char(char c) noexcept {
  const auto octet = static_cast<unsigned char>(c);
  return octet > 0x20 && octet != 0x7f;
}

int hex_digit(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string_view trimmed(std::string_view text) noexcept {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

/// Beast's parser, writing straight into our request.
class Parser final : public beast::http::basic_parser<true> {
  using View = beast::string_view;

 public:
  Parser(Request& request, std::size_t body_octets) : request_{request}, body_octets_{body_octets} {
    // lines are counted before they come here; each bare LF has become two octets since
    header_limit(0xffffffff);
    body_limit(body_octets);
  }

 private:
  void on_request_impl(beast::http::verb, View method, View target, int version, error_code& error) override {
    request_.method.assign(method.data(), method.size());
    request_.target.assign(target.data(), target.size());
    request_.minor_version = static_cast<unsigned>(version % 10);
    error = {};
  }
  void on_response_impl(int, View, int, error_code& error) override { error = {}; }
  void on_field_impl(beast::http::field, View name, View value, error_code& error) override {
    request_.fields.add({name.data(), name.size()}, {value.data(), value.size()});
    error = {};
  }
  void on_header_impl(error_code& error) override { error = {}; }
  void on_body_init_impl(const boost::optional<std::uint64_t>&, error_code& error) override { error = {}; }
  std::size_t on_body_impl(View body, error_code& error) override {
    append(body);
    error = {};
    return body.size();
  }
  void on_chunk_header_impl(std::uint64_t, View, error_code& error) override { error = {}; }
  std::size_t on_chunk_body_impl(std::uint64_t, View body, error_code& error) override {
    append(body);
    error = {};
    return body.size();
  }
  void on_finish_impl(error_code& error) override { error = {}; }

  /// Grows by doubling up to the limit and not beyond it, and never ahead of what came: an announced length
  /// costs nothing.
  void append(View part) {
    auto& body = request_.body;
    const auto needed = body.size() + part.size();
    if (needed > body.capacity()) body.reserve(std::max(needed, std::min(2 * body.capacity(), body_octets_)));
    body.append(part.data(), part.size());
  }

  Request& request_;
  std::size_t body_octets_;
};

}  // namespace

class HttpReader::Impl {
 public:
  explicit Impl(const Limits& limits) : limits_{limits} {}

  void feed(std::string_view octets) {
    if (state_ == State::failed) return;
    input_.append(octets);
  }
  std::optional<Event> next();
  bool started() const noexcept { return state_ != State::request_line || head_octets_ > 0 || at_ < input_.size(); }
  bool in_body() const noexcept { return state_ >= State::body && state_ != State::failed; }
  std::size_t waiting() const noexcept { return input_.size() - at_; }
  void reset();

 private:
  enum class State : std::uint8_t { request_line, fields, body, chunk_end, chunk_line, chunk_data, trailers, failed };
  enum class Part : std::uint8_t { before, before_lf, method, target, version, version_lf };
  enum class Chunk : std::uint8_t { digits, extension, lf };

  /// Each reads what it can and changes state_. A status means failure; 0 goes on, and without a change of state
  /// more octets are needed.
  unsigned read_request_line();
  unsigned read_fields(bool trailers);
  unsigned read_chunk_end();
  unsigned read_chunk_line();
  unsigned read_data();

  unsigned end_request_line();
  unsigned note_field(std::string_view name, std::string_view value);
  unsigned end_head();
  bool give(std::string_view octets);  ///< to Beast, whole; false when it finds fault
  Request take_request();
  void drop_read() noexcept;

  Limits limits_;
  std::string input_;
  std::size_t at_ = 0;       ///< the first octet of input_ that was not taken yet
  std::size_t searched_ = 0; ///< up to here there is no line end
  State state_ = State::request_line;
  Part part_ = Part::before;
  Chunk chunk_ = Chunk::digits;

  std::string unit_;  ///< lines with CRLF, until a unit is complete that Beast understands
  std::size_t part_begin_ = 0;  ///< of the target or version in unit_
  std::size_t head_octets_ = 0;
  std::size_t field_count_ = 0;
  unsigned minor_version_ = 1;
  bool needs_body_ = false;  ///< by its method
  unsigned hosts_ = 0;
  bool chunked_ = false;
  bool expects_continue_ = false;
  bool expects_more_ = false;  ///< what nobody here can fulfil
  std::optional<std::uint64_t> content_length_;
  std::size_t digits_ = 0;
  std::uint64_t remaining_ = 0;  ///< of the body or of this chunk
  std::uint64_t body_octets_ = 0;  ///< of all chunks so far
  bool complete_ = false;
  bool say_continue_ = false;

  Request request_;
  std::optional<Parser> parser_;
};

std::optional<HttpReader::Event> HttpReader::Impl::next() {
  while (state_ != State::failed) {
    const auto before = state_;
    unsigned status = 0;
    switch (state_) {
      case State::request_line: status = read_request_line(); break;
      case State::fields: status = read_fields(false); break;
      case State::body:
      case State::chunk_data: status = read_data(); break;
      case State::chunk_end: status = read_chunk_end(); break;
      case State::chunk_line: status = read_chunk_line(); break;
      case State::trailers: status = read_fields(true); break;
      case State::failed: break;
    }
    if (status != 0) {
      reset();
      state_ = State::failed;
      return Failure{status};
    }
    if (complete_) return take_request();
    if (std::exchange(say_continue_, false)) return Continue{};
    if (state_ == before) break;
  }
  drop_read();
  return std::nullopt;
}

/// Octet by octet: noise is answered at its first octet, not when it happens to hold a line end (POL-WEB-11).
unsigned HttpReader::Impl::read_request_line() {
  while (at_ < input_.size()) {
    const char c = input_[at_++];
    if (++head_octets_ > limits_.head_octets) return 431;
    switch (part_) {
      case Part::before:  // RFC 9112, section 2.2: empty lines come from old clients that end bodies with one
        if (c == '\n') break;
        if (c == '\r') {
          part_ = Part::before_lf;
          break;
        }
        part_ = Part::method;
        [[fallthrough]];
      case Part::method:
        if (c == ' ' && !unit_.empty()) {
          needs_body_ = unit_ == "POST" || unit_ == "M-POST";
          part_ = Part::target;
          part_begin_ = unit_.size() + 1;
        } else if (!is_token_char(c)) {
          return 400;
        } else if (unit_.size() >= max_method) {
          return 501;
        }
        unit_ += c;
        break;
      case Part::before_lf:
        if (c != '\n') return 400;
        part_ = Part::before;
        break;
      case Part::target:
        if (c == ' ' && unit_.size() > part_begin_) {
          part_ = Part::version;
          part_begin_ = unit_.size() + 1;
        } else if (!is_target_char(c)) {
          return 400;
        } else if (unit_.size() - part_begin_ >= limits_.target_octets) {
          return 414;
        }
        unit_ += c;
        break;
      case Part::version:
        if (c == '\n') return end_request_line();
        if (c == '\r') {
          part_ = Part::version_lf;
          break;
        }
        if (unit_.size() - part_begin_ >= 8) return 400;
        unit_ += c;
        break;
      case Part::version_lf: return c == '\n' ? end_request_line() : 400;
    }
  }
  return 0;
}

unsigned HttpReader::Impl::end_request_line() {
  const auto version = std::string_view{unit_}.substr(part_begin_);
  const auto digit = [&](std::size_t i) { return version[i] >= '0' && version[i] <= '9'; };
  if (version.size() != 8 || !version.starts_with("HTTP/") || version[6] != '.' || !digit(5) || !digit(7)) return 400;
  if (version[5] != '1') return 505;
  minor_version_ = version[7] == '0' ? 0 : 1;
  if (minor_version_ == 1) unit_.back() = '1';  // a later HTTP/1.x is answered as HTTP/1.1 (RFC 9110, section 2.5)
  unit_ += "\r\n";
  searched_ = at_;
  state_ = State::fields;
  return 0;
}

unsigned HttpReader::Impl::read_fields(bool trailers) {
  for (;;) {
    const auto* const begin = input_.data();
    const auto* const end = static_cast<const char*>(
        std::memchr(begin + searched_, '\n', input_.size() - searched_));
    if (end == nullptr) {
      searched_ = input_.size();
      return head_octets_ + (input_.size() - at_) > limits_.head_octets ? 431 : 0;
    }
    const auto after = static_cast<std::size_t>(end - begin) + 1;
    head_octets_ += after - at_;
    if (head_octets_ > limits_.head_octets) return 431;
    auto line = std::string_view{input_}.substr(at_, after - 1 - at_);
    if (line.ends_with('\r')) line.remove_suffix(1);
    at_ = searched_ = after;

    if (line.empty()) {
      if (!trailers) return end_head();
      unit_ += "\r\n";
      if (!give(unit_)) return 400;
      complete_ = true;
      return 0;
    }
    if (++field_count_ > limits_.fields) return 431;
    const auto colon = std::min(line.find(':'), line.size());
    const auto name = line.substr(0, colon);
    // a line that begins with a blank continues the one before for some and not for others
    if (name.empty() || colon == line.size() || !std::ranges::all_of(name, is_token_char)) return 400;
    const auto value = trimmed(line.substr(colon + 1));
    if (!std::ranges::all_of(value, is_text_char)) return 400;
    if (trailers) continue;  // read over: no trailer may say what a head should have said
    if (const auto status = note_field(name, value)) return status;
    unit_ += line;
    unit_ += "\r\n";
  }
}

/// The fields that decide where the request ends are read here, and more strictly than Beast does.
unsigned HttpReader::Impl::note_field(std::string_view name, std::string_view value) {
  switch (name.size()) {
    case 4:
      if (same_name(name, "Host") && ++hosts_ > 1) return 400;
      break;
    case 6:
      if (same_name(name, "Expect")) (same_name(value, "100-continue") ? expects_continue_ : expects_more_) = true;
      break;
    case 14: {
      if (!same_name(name, "Content-Length")) break;
      if (content_length_ || value.empty()) return 400;
      std::uint64_t length = 0;
      for (const char c : value) {
        if (c < '0' || c > '9') return 400;
        length = std::min<std::uint64_t>(length * 10 + static_cast<std::uint64_t>(c - '0'), 1'000'000'000'000);
      }
      content_length_ = length;
      break;
    }
    case 17:
      if (!same_name(name, "Transfer-Encoding")) break;
      if (chunked_) return 400;
      if (!same_name(value, "chunked")) return 501;
      chunked_ = true;
      break;
    default: break;
  }
  return 0;
}

unsigned HttpReader::Impl::end_head() {
  if (chunked_ && (content_length_ || minor_version_ == 0)) return 400;
  if (minor_version_ >= 1 && hosts_ == 0) return 400;
  if (minor_version_ >= 1 && expects_more_) return 417;
  if (content_length_ && *content_length_ > limits_.body_octets) return 413;
  // Nobody sends a POST without a body; what follows would be taken for the next request (HTTP-06).
  if (needs_body_ && !chunked_ && !content_length_) return 411;

  unit_ += "\r\n";
  request_ = {};
  parser_.emplace(request_, limits_.body_octets);
  if (!give(unit_)) return 400;
  unit_.clear();
  const bool has_body = chunked_ || content_length_.value_or(0) > 0;
  if (parser_->is_done() == has_body) return 400;
  if (!has_body) {
    complete_ = true;
    return 0;
  }
  say_continue_ = expects_continue_ && minor_version_ >= 1;
  remaining_ = content_length_.value_or(0);
  state_ = chunked_ ? State::chunk_line : State::body;
  chunk_ = Chunk::digits;
  digits_ = 0;
  return 0;
}

unsigned HttpReader::Impl::read_data() {
  const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(remaining_, input_.size() - at_));
  if (size == 0) return 0;
  if (!give(std::string_view{input_}.substr(at_, size))) return 400;
  at_ += size;
  remaining_ -= size;
  if (remaining_ > 0) return 0;
  if (state_ == State::body) {
    if (!parser_->is_done()) return 400;
    complete_ = true;
  } else {
    state_ = State::chunk_end;
  }
  return 0;
}

/// The CRLF behind a chunk's data. Beast wants it together with the next chunk's line.
unsigned HttpReader::Impl::read_chunk_end() {
  while (at_ < input_.size()) {
    const char c = input_[at_++];
    if (c != (unit_.empty() ? '\r' : '\n')) return 400;
    unit_ += c;
    if (c != '\n') continue;
    state_ = State::chunk_line;
    chunk_ = Chunk::digits;
    digits_ = 0;
    return 0;
  }
  return 0;
}

unsigned HttpReader::Impl::read_chunk_line() {
  while (at_ < input_.size()) {
    const char c = input_[at_++];
    unit_ += c;
    switch (chunk_) {
      case Chunk::digits:
        if (const int digit = hex_digit(c); digit >= 0) {
          if (++digits_ > max_chunk_digits) return 400;
          remaining_ = (digits_ == 1 ? 0 : remaining_ * 16) + static_cast<std::uint64_t>(digit);
          break;
        }
        if (digits_ == 0 || (c != '\r' && c != ';' && c != ' ' && c != '\t')) return 400;
        chunk_ = Chunk::extension;
        [[fallthrough]];
      case Chunk::extension:
        if (c == '\r') {
          chunk_ = Chunk::lf;
          break;
        }
        if (!is_text_char(c)) return 400;
        if (++head_octets_ > limits_.head_octets) return 431;
        break;
      case Chunk::lf:
        if (c != '\n') return 400;
        if (remaining_ == 0) {
          searched_ = at_;
          state_ = State::trailers;
          return 0;
        }
        body_octets_ += remaining_;
        if (body_octets_ > limits_.body_octets) return 413;
        if (!give(unit_)) return 400;
        unit_.clear();
        state_ = State::chunk_data;
        return 0;
    }
  }
  return 0;
}

bool HttpReader::Impl::give(std::string_view octets) {
  while (!octets.empty()) {
    if (parser_->is_done()) return false;
    error_code error;
    const auto taken = parser_->put(boost::asio::const_buffer{octets.data(), octets.size()}, error);
    // need_more with nothing taken would be a unit that Beast thinks incomplete; a head ends in a plain success
    if (error && (error != beast::http::error::need_more || taken == 0)) return false;
    if (taken == 0) return false;
    octets.remove_prefix(taken);
  }
  return true;
}

Request HttpReader::Impl::take_request() {
  auto request = std::move(request_);
  drop_read();
  auto rest = std::move(input_);
  const auto at = at_;
  reset();
  input_ = std::move(rest);
  at_ = at;
  return request;
}

/// Frees what was taken; moves octets only when at least as many were taken as are left, so that each is moved a
/// bounded number of times.
void HttpReader::Impl::drop_read() noexcept {
  const auto left = input_.size() - at_;
  if (left > at_) return;
  input_.erase(0, at_);
  searched_ -= std::min(searched_, at_);
  at_ = 0;
  if (left == 0 && input_.capacity() > kept_capacity) std::string{}.swap(input_);
}

void HttpReader::Impl::reset() {
  input_.clear();
  if (input_.capacity() > kept_capacity) std::string{}.swap(input_);
  unit_.clear();
  if (unit_.capacity() > kept_capacity) std::string{}.swap(unit_);
  at_ = searched_ = part_begin_ = head_octets_ = field_count_ = digits_ = 0;
  state_ = State::request_line;
  part_ = Part::before;
  chunk_ = Chunk::digits;
  minor_version_ = 1;
  needs_body_ = chunked_ = expects_continue_ = expects_more_ = complete_ = say_continue_ = false;
  hosts_ = 0;
  content_length_.reset();
  remaining_ = body_octets_ = 0;
  parser_.reset();
  request_ = {};
}

HttpReader::HttpReader(const Limits& limits) : impl_{std::make_unique<Impl>(limits)} {}
HttpReader::~HttpReader() = default;
HttpReader::HttpReader(HttpReader&&) noexcept = default;
HttpReader& HttpReader::operator=(HttpReader&&) noexcept = default;
void HttpReader::feed(std::string_view octets) { impl_->feed(octets); }
std::optional<HttpReader::Event> HttpReader::next() { return impl_->next(); }
bool HttpReader::started() const noexcept { return impl_->started(); }
bool HttpReader::in_body() const noexcept { return impl_->in_body(); }
std::size_t HttpReader::waiting() const noexcept { return impl_->waiting(); }
void HttpReader::reset() { impl_->reset(); }

}  // namespace sallyport::transport
