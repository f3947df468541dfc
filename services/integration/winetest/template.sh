# Makes the prefix $1, which all others are copied from, unless it is there. $2 is the source of bcryptprimitives.dll.
# The environment is that of a prefix's programs.
if [ -e "$1" ]; then exit 0; fi
export WINEPREFIX="$1.new"
rm -rf "$WINEPREFIX"
timeout 300 wine wineboot --init
# The registry is written when the server ends.
timeout 60 wineserver -k || true
timeout 60 wineserver -w
x86_64-w64-mingw32-gcc -shared -Os -s -nostdlib -Wl,-e,0 -o "$WINEPREFIX/drive_c/windows/system32/bcryptprimitives.dll" "$2" -ladvapi32
mv "$WINEPREFIX" "$1"
