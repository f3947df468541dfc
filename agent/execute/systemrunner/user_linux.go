package systemrunner

const (
	standardPath     = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	standardLanguage = "C.UTF-8"
)
