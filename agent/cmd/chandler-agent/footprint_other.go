//go:build !linux

package main

// dropProgramPages does nothing: the system takes such pages by itself.
func dropProgramPages() {}
