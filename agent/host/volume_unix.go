//go:build unix

package host

func systemVolume() string { return "/" }
