/* The product of two floats in double, by one instruction where a CPU has one (MDEBR of s390x) and from operands widened
 * first. The products differ only if the CPU, or an emulator of it, is wrong: then this prints them and returns 1. */
#include <stdio.h>

__attribute__((noinline)) static double at_once(float a, float b) { return (double)a * (double)b; }
__attribute__((noinline)) static double widened(float a) { return a; }
__attribute__((noinline)) static double product(double a, double b) { return a * b; }

int main(void)
{
    volatile float three = 3, five = 5; /* else the compiler multiplies */
    const float a = three, b = five;
    const double once = at_once(a, b), apart = product(widened(a), widened(b));
    printf("%g times %g is %g at once, %g widened first\n", a, b, once, apart);
    return once != apart;
}
