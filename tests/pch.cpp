// Owns the precompiled header (CMakeLists.txt).
int main() {}
