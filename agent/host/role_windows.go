package host

import "golang.org/x/sys/windows"

// verDomainController is VER_NT_DOMAIN_CONTROLLER; a member server has 3, a workstation 1.
const verDomainController = 2

func domainController() bool { return windows.RtlGetVersion().ProductType == verDomainController }
