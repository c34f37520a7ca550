#pragma once

#include <boost/system/result.hpp>

namespace sallyport {

/// What a fallible function returns: the value, or an error code of the room's own category.
template <class T>
using Result = boost::system::result<T>;

}  // namespace sallyport
