// Package calendar is the arithmetic of time that everybody decides by: moments as people write them, zones, cron
// expressions and maintenance windows. Agents, services, the command line and the rehearsal get the same answers from it.
//
// It is pure: the time comes in as a parameter, nothing waits, nothing is read but the zones' rules, which the program
// carries with it where the machine has none. What cannot be parsed or never happens is refused with the reason. Data
// that Validate would refuse does no harm: such a window never opens.
//
// Clocks that are set forward skip wall times, clocks that are set back show them twice. One rule holds for all: a
// wall time belongs to the first instant at which clocks show it or a later one. So what is skipped happens when the
// clocks are set, and what is shown twice happens the first time. A date that a zone skips entirely (Samoa's
// 2011-12-30) has neither firings nor openings. Durations are elapsed time.
package calendar

import _ "time/tzdata" // the zones' rules, for machines without them: Windows, minimal containers
