// Plain is what JSON can write of a type: every key optional, enumerations as their texts.
export type Plain<T> = T extends string
  ? `${T}`
  : T extends number | boolean | null | undefined
    ? T
    : T extends Array<infer U>
      ? Array<Plain<U>>
      : T extends object
        ? { [K in keyof T]?: Plain<T[K]> }
        : T;
