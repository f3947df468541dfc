//go:build !linux

package accounttest

func privateEtc() string { return "run the tests on Linux" }

func again() {}
