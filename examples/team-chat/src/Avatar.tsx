/** A disc with an initial, in a colour of the person's own. */
export function Avatar({ id, name, present }: { id: string; name: string; present?: boolean }) {
  const hue = [...id].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 360, 7);
  return (
    <span className="avatar" style={{ background: `hsl(${hue} 45% 42%)` }} data-present={present} aria-hidden>
      {name[0]}
    </span>
  );
}
