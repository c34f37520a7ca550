#include "tests/support/hex.hpp"
#include "tests/support/manual_clock.hpp"
