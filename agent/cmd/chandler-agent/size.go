package main

import (
	"fmt"
	"strconv"
	"strings"
)

// parseSize reads 500MiB, 5GiB or plain bytes; empty is 0, which means the default.
func parseSize(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	shift := 0
	for unit, n := range map[string]int{"KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40} {
		if head, ok := strings.CutSuffix(s, unit); ok {
			s, shift = strings.TrimSpace(head), n
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 || n > (1<<62)>>shift {
		return 0, fmt.Errorf("%q is no size: write it as 500MiB or 5GiB", s)
	}
	return n << shift, nil
}
