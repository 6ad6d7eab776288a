/* Everything that is compiled once per instruction set; see lanes.h. */
#include "lanes.h"
#include "ring_sums.h"
#include "ring_statistics.h"
#include "outliers.h"

#undef F16
#undef D16
#undef LANES_ISA
#undef TARGET
#undef FN
